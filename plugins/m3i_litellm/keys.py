"""Which environment variables may hold the key of a model, without importing litellm (5 s)."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from m3i.ledger.price_table import price_table

VARIABLES: dict[str, tuple[str, ...]] = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "azure": ("AZURE_API_KEY", "AZURE_AD_TOKEN"),
    "codestral": ("CODESTRAL_API_KEY",),
    "cohere_chat": ("COHERE_API_KEY",),
    "datarobot": ("DATAROBOT_API_TOKEN",),
    "fireworks_ai": ("FIREWORKS_AI_API_KEY", "FIREWORKS_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "huggingface": ("HUGGINGFACE_API_KEY", "HF_TOKEN"),
    "perplexity": ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
    "together_ai": ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_AI_TOKEN"),
    # files, roles and profiles count too: the provider's own library finds them
    "bedrock": (),
    "bedrock_converse": (),
    "sagemaker": (),
    "vertex_ai": (),
    "vertex_ai_beta": (),
    # your own servers
    "hosted_vllm": (),
    "llamafile": (),
    "lm_studio": (),
    "ollama": (),
    "ollama_chat": (),
    "oobabooga": (),
    "vllm": (),
    "xinference": (),
}
"""Provider → variables, if other than `PROVIDER_API_KEY`. Empty: no key that can be found by looking at one
variable."""


def provider_of(model: str) -> str:
    """The provider of a model id: its prefix, else what litellm's table says, else `openai`."""
    host, slash, _ = model.partition("/")
    if slash:
        return host
    return str(price_table().get(model, {}).get("litellm_provider", "openai"))


def variables_of(model: str, api_base: str | None) -> tuple[str, ...]:
    """Variables of which one must be set; none for a server on this machine or its network."""
    if api_base is not None and is_local(api_base):
        return ()
    return named_variables(model)


def named_variables(model: str) -> tuple[str, ...]:
    """Variables that litellm reads for this model."""
    provider = provider_of(model)
    return VARIABLES.get(provider, (f"{provider.upper().replace('-', '_')}_API_KEY",))


def is_local(api_base: str) -> bool:
    """Whether an address is on this machine or its network."""
    host = urlsplit(api_base if "://" in api_base else f"//{api_base}").hostname or ""
    if host == "localhost" or host.endswith((".localhost", ".local")):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
