"""The observer `litellm`."""

from __future__ import annotations

from dataclasses import dataclass

from m3i.llm.observer import LLMObserver

from .options import LiteLLMModel


@dataclass(kw_only=True)
class LiteLLM(LiteLLMModel, LLMObserver):
    """Reads each trace with a model that litellm reaches; findings are structured. Needs the provider's key."""
