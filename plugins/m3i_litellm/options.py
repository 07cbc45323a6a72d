"""What observer and judge have in common: the model, where it is, and the client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from m3i import require
from m3i.ledger.request import Provider
from m3i.llm.remote import RemoteModel

from .keys import variables_of


@dataclass(kw_only=True)
class LiteLLMModel(RemoteModel):
    """A model that litellm reaches; it is used as a library alone, without its proxy, cache, retries and callbacks."""

    libraries: ClassVar[tuple[str, ...]] = ("litellm",)
    provider_name: ClassVar[str] = "litellm"

    model: str
    """litellm's id: `provider/model`, e.g. `openai/gpt-5`, `mistral/mistral-large-latest`, `ollama_chat/qwen3`."""
    api_base: str | None = None
    """Address of the provider's API, e.g. `http://127.0.0.1:8000/v1`; null leaves it to litellm and its variables."""
    reasoning_effort: str | None = None
    """How much a model that thinks may think: as its provider spells it (`low`, `medium`, `high`); null: not sent."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        base = self.api_base
        if base is not None:
            good = urlsplit(base).scheme in ("http", "https") and "@" not in base and "?" not in base
            accepted = "null or http://... or https://..., without a key or password in it"
            require(good, f"{self.group}.api_base", "[an address]" if "@" in base or "?" in base else base, accepted)
        effort = self.reasoning_effort
        require(effort is None or effort.isalpha(), f"{self.group}.reasoning_effort", effort, "null or a word")

    def keys(self) -> tuple[str, ...]:
        """By provider; none for a server on this machine or in its network."""
        return variables_of(self.model, self.api_base)

    def request_options(self) -> dict[str, Any]:
        """What the client sends besides the prompt, and where."""
        options = {"api_base": self.api_base, "reasoning_effort": self.reasoning_effort}
        return {name: value for name, value in options.items() if value is not None}

    def provider(self) -> Provider:
        """A client for one event loop."""
        from .client import LiteLLMProvider

        return LiteLLMProvider()
