"""What observer and judge share: the options that only Claude has, and the client."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from m3i import require
from m3i.ledger.request import Provider
from m3i.llm.models import CLAUDE
from m3i.llm.remote import RemoteModel
from m3i.llm.sdk import THINKING_TOKENS


class Effort(Enum):
    """How much effort the model puts into a reply."""

    low = "low"
    medium = "medium"
    high = "high"
    xhigh = "xhigh"
    max = "max"


class Thinking(Enum):
    """Whether the model reasons before it replies."""

    adaptive = "adaptive"
    between_tools = "between_tools"
    disabled = "disabled"


THINKS_BY_ITSELF = re.compile(r"claude-[a-z]+-[5-9]")
"""Models that think unless told not to."""


@dataclass(kw_only=True)
class ClaudeModel(RemoteModel):
    """A model of Anthropic's API; `ANTHROPIC_BASE_URL` and the SDK's other environment variables still apply."""

    libraries: ClassVar[tuple[str, ...]] = ("anthropic",)
    provider_name: ClassVar[str] = "anthropic"
    key_variables: ClassVar[tuple[str, ...]] = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    has_batches: ClassVar[bool] = True

    model: str = CLAUDE
    """Model id of Anthropic's API, e.g. `claude-sonnet-4-5-20250929`, which the published run used."""
    effort: Effort | None = None
    """Effort per reply: low, medium, high, xhigh or max; null leaves it to the model. Not every model accepts all of
    them."""
    thinking: Thinking | None = None
    """Thinking before the reply: adaptive (as much as the model wants), between_tools (none, for Claude 5.5), disabled
    (none, for older models); null leaves it to the model: on from Claude 5, off before."""
    thinking_budget: int | None = None
    """Maximum number of thinking tokens, only for models before Claude 5; ≥ 1024 and < max_tokens. Null: no thinking of
    this kind."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        budget = self.thinking_budget
        if budget is not None:
            accepted = f"null or a number from 1024 to max_tokens - 1 = {self.max_tokens - 1}"
            require(1024 <= budget < self.max_tokens, f"{self.group}.thinking_budget", budget, accepted)
            accepted = "null if thinking_budget is given: the budget turns thinking on"
            require(self.thinking is None, f"{self.group}.thinking", self.thinking, accepted)
        accepted = "null: Anthropic's API takes no temperature; effort and thinking are its options"
        require(self.temperature is None, f"{self.group}.temperature", self.temperature, accepted)

    def request_options(self) -> dict[str, Any]:
        """The options that the client sends besides the prompt, if they are not the model's defaults."""
        options: dict[str, Any] = {}
        if self.effort is not None:
            options["effort"] = self.effort.value
        if self.thinking is not None:
            options["thinking"] = self.thinking.value
        if self.thinking_budget is not None:
            options["thinking_budget"] = self.thinking_budget
        return options

    def thinking_tokens(self) -> int:
        """Expected thinking tokens per reply."""
        if self.thinking_budget is not None:
            return min(self.thinking_budget, THINKING_TOKENS)
        by_itself = self.thinking is None and THINKS_BY_ITSELF.search(self.model) is not None
        return THINKING_TOKENS if by_itself or self.thinking is Thinking.adaptive else 0

    def provider(self) -> Provider:
        """A client for one event loop."""
        from .client import AnthropicProvider

        return AnthropicProvider()
