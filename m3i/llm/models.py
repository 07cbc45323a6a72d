"""Default model ids, in one place, and the family of a model id."""

from __future__ import annotations

CLAUDE = "claude-sonnet-5-5"
GEMINI = "gemini-3.8-flash"
"""To which Google routes requests for the seed's `gemini-2.5-pro` when that ends."""

FAMILIES = {
    "claude": ("claude", "anthropic"),
    "gemini": ("gemini", "gemma", "palm"),
    "gpt": ("gpt", "openai", "chatgpt", "o1", "o3", "o4"),
    "deepseek": ("deepseek",),
    "llama": ("llama", "meta-"),
    "qwen": ("qwen", "qwq"),
    "mistral": ("mistral", "mixtral", "magistral", "codestral"),
    "grok": ("grok", "xai"),
    "smollm": ("smollm",),
    "command": ("command-", "cohere"),
    "phi": ("phi-",),
}
"""Family → what its model ids contain."""


def family_of(model: str) -> str:
    """Who made a model, from its id (`openai/gpt-5` → `gpt`); the id's own last part where nobody is recognised.

    The last part is looked at first: `bedrock/anthropic.claude-x` and `groq/llama-x` are of the model's family, not of
    the host's.
    """
    parts = model.lower().split("/")
    for part in reversed(parts):
        for family, marks in FAMILIES.items():
            if any(part.startswith(mark) or f".{mark}" in part or f"-{mark}" in part for mark in marks):
                return family
    return parts[-1]
