"""The judge `gemini`."""

from __future__ import annotations

from dataclasses import dataclass

from m3i.llm.judge import LLMJudge

from .options import GeminiModel


@dataclass(kw_only=True)
class GeminiJudge(GeminiModel, LLMJudge):
    """Compares two answers with a Google model; the choice is structured output. Needs GEMINI_API_KEY."""
