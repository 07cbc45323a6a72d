"""What observer and judge share: the model, its address, and the client."""

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
    """A model reached through litellm, used only as a library: without its proxy, cache, retries and callbacks."""

    libraries: ClassVar[tuple[str, ...]] = ("litellm",)
    provider_name: ClassVar[str] = "litellm"

    model: str
    """litellm's id: `provider/model`, e.g. `openai/gpt-5`, `mistral/mistral-large-latest`, `ollama_chat/qwen3`."""
    api_base: str | None = None
    """Address of the provider's API, e.g. `http://127.0.0.1:8000/v1`; null leaves it to litellm and its environment
    variables."""
    reasoning_effort: str | None = None
    """How much a reasoning model may think, in its provider's words (`low`, `medium`, `high`); null sends nothing."""

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
        """The provider's variables; none for a server on this machine or its network."""
        return variables_of(self.model, self.api_base)

    def request_options(self) -> dict[str, Any]:
        """The options that the client sends besides the prompt, and the address."""
        options = {"api_base": self.api_base, "reasoning_effort": self.reasoning_effort}
        return {name: value for name, value in options.items() if value is not None}

    def provider(self) -> Provider:
        """A client for one event loop."""
        from .client import LiteLLMProvider

        return LiteLLMProvider()
