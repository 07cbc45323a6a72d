"""The observer `gemini`."""

from __future__ import annotations

from dataclasses import dataclass

from m3i.llm.observer import LLMObserver

from .options import GeminiModel


@dataclass(kw_only=True)
class Gemini(GeminiModel, LLMObserver):
    """Reads each trace with a Google model; findings are structured output. Needs GEMINI_API_KEY."""
