"""A local GGUF model as observer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from m3i import require
from m3i.llm.observer import LLMObserver

from .model import LlamaCppModel

MAX_LAYERS = 5


@dataclass(kw_only=True)
class LlamaCppObserver(LlamaCppModel, LLMObserver):
    """A local GGUF model reads each trace and quotes what fails, without a key or a network.

    A grammar holds its output to the form asked for, which makes it readable, not right. The default,
    SmolLM2-135M-Instruct, is for trying the path out and finds next to nothing; see docs/providers/llamacpp.md for
    what was measured. Give `model` a file of several billion parameters for an audit that means something.
    """

    max_findings: int = 5
    """Most findings of one trace."""
    max_quote_chars: int = 120
    """Longest quote, and longest correction, in characters."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        require(1 <= self.max_findings <= 50, "observer.max_findings", self.max_findings, "1 to 50")
        require(1 <= self.max_quote_chars < 2000, "observer.max_quote_chars", self.max_quote_chars, "1 to 1999")

    def limits(self) -> Mapping[str, int]:
        """Of a reply's texts and lists."""
        return {
            "findings": self.max_findings,
            "quote": self.max_quote_chars,
            "correction": self.max_quote_chars,
            "reason": self.max_reason_chars,
            "layers": MAX_LAYERS,
        }
