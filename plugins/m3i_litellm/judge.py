"""The judge `litellm`."""

from __future__ import annotations

from dataclasses import dataclass

from m3i.llm.judge import LLMJudge

from .options import LiteLLMModel


@dataclass(kw_only=True)
class LiteLLMJudge(LiteLLMModel, LLMJudge):
    """Compares two answers with a model that litellm reaches; the choice is structured. Needs the provider's key."""
