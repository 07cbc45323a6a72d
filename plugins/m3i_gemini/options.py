"""What observer and judge share: the options that only Gemini has, and the client."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from m3i import require
from m3i.ledger.request import Provider
from m3i.llm.models import GEMINI
from m3i.llm.remote import RemoteModel
from m3i.llm.sdk import THINKING_TOKENS

VERTEX = ("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE")
"""Variables that make the SDK use Google Cloud, whose credentials are not an API key."""


class ThinkingLevel(Enum):
    """How much a model reasons before it replies."""

    minimal = "minimal"
    low = "low"
    medium = "medium"
    high = "high"


@dataclass(kw_only=True)
class GeminiModel(RemoteModel):
    """A model of the Gemini API; `GOOGLE_GEMINI_BASE_URL` and the SDK's other environment variables still apply."""

    libraries: ClassVar[tuple[str, ...]] = ("google-genai",)
    provider_name: ClassVar[str] = "gemini"
    key_variables: ClassVar[tuple[str, ...]] = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    has_batches: ClassVar[bool] = True

    model: str = GEMINI
    """Model id of the Gemini API, e.g. `gemini-2.5-pro`, which the published run used."""
    thinking_budget: int | None = None
    """Maximum number of thinking tokens of Gemini 2.5 models, < max_tokens; -1 leaves it to the model, 0 turns thinking
    off (not every model accepts that), null sends no budget."""
    thinking_level: ThinkingLevel | None = None
    """Thinking of Gemini 3 and later: minimal, low, medium or high; null leaves it to the model."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        budget = self.thinking_budget
        if budget is not None:
            accepted = f"null or a number from -1 to max_tokens - 1 = {self.max_tokens - 1}"
            require(-1 <= budget < self.max_tokens, f"{self.group}.thinking_budget", budget, accepted)
            accepted = "null if thinking_budget is given: a model takes only one of the two"
            require(self.thinking_level is None, f"{self.group}.thinking_level", self.thinking_level, accepted)

    def keys(self) -> tuple[str, ...]:
        """`key_variables`; none with Google Cloud, where the SDK finds its own credentials."""
        cloud = any(os.environ.get(name, "").strip().lower() in ("1", "true") for name in VERTEX)
        return () if cloud else self.key_variables

    def request_options(self) -> dict[str, Any]:
        """The options that the client sends besides the prompt, if they are not the model's defaults."""
        options: dict[str, Any] = {}
        if self.thinking_budget is not None:
            options["thinking_budget"] = self.thinking_budget
        if self.thinking_level is not None:
            options["thinking_level"] = self.thinking_level.value
        return options

    def thinking_tokens(self) -> int:
        """Expected thinking tokens per reply: these models think unless told not to."""
        if self.thinking_budget is not None and self.thinking_budget >= 0:
            return min(self.thinking_budget, THINKING_TOKENS)
        return 0 if self.thinking_level is ThinkingLevel.minimal else THINKING_TOKENS

    def provider(self) -> Provider:
        """A client for one event loop."""
        from .client import GeminiProvider

        return GeminiProvider()
