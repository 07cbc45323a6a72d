"""The judge `claude`."""

from __future__ import annotations

from dataclasses import dataclass

from m3i.llm.judge import LLMJudge

from .options import ClaudeModel


@dataclass(kw_only=True)
class ClaudeJudge(ClaudeModel, LLMJudge):
    """Compares two answers with an Anthropic model; the choice is structured output. Needs ANTHROPIC_API_KEY."""
