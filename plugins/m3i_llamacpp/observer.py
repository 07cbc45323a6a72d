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

    A grammar forces its output into the required form, which makes it readable, not correct. The default,
    SmolLM2-135M-Instruct, is for trying things out and finds next to nothing; docs/providers/llamacpp.md has
    measurements. For a meaningful audit, give `model` a file of several billion parameters.
    """

    max_findings: int = 5
    """Maximum number of findings per trace."""
    max_quote_chars: int = 120
    """Maximum length of a quote, and of a correction, in characters."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        require(1 <= self.max_findings <= 50, "observer.max_findings", self.max_findings, "1 to 50")
        require(1 <= self.max_quote_chars < 2000, "observer.max_quote_chars", self.max_quote_chars, "1 to 1999")

    def limits(self) -> Mapping[str, int]:
        """Limits for the reply's texts and lists."""
        return {
            "findings": self.max_findings,
            "quote": self.max_quote_chars,
            "correction": self.max_quote_chars,
            "reason": self.max_reason_chars,
            "layers": MAX_LAYERS,
        }
