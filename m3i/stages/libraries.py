"""Libraries whose versions the keys of several stages hold."""

TORCH = ("torch", "transformers", "tokenizers")
