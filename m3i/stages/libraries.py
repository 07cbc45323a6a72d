"""Libraries whose versions enter the keys of several stages."""

TORCH = ("torch", "transformers", "tokenizers")
