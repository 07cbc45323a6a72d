"""The observer `claude`."""

from __future__ import annotations

from dataclasses import dataclass

from m3i.llm.observer import LLMObserver

from .options import ClaudeModel


@dataclass(kw_only=True)
class Claude(ClaudeModel, LLMObserver):
    """Reads each trace with an Anthropic model; findings are structured output. Needs ANTHROPIC_API_KEY."""
