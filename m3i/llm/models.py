"""Default model ids, and the family of any model id."""

from __future__ import annotations

CLAUDE = "claude-sonnet-5-5"
GEMINI = "gemini-3.8-flash"
"""The model to which Google will route requests for `gemini-2.5-pro`, which the published run used, once it ends."""

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
"""Family → marks by which its model ids are recognised."""


def family_of(model: str) -> str:
    """Returns the family of a model id (`openai/gpt-5` → `gpt`); the id's last part if no family is recognised.

    The last part is checked first: `bedrock/anthropic.claude-x` and `groq/llama-x` belong to the model's family, not
    the host's.
    """
    parts = model.lower().split("/")
    for part in reversed(parts):
        for family, marks in FAMILIES.items():
            if any(part.startswith(mark) or f".{mark}" in part or f"-{mark}" in part for mark in marks):
                return family
    return parts[-1]
