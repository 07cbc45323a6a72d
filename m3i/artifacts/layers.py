"""Scores for layers, and the layers chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from m3i.artifacts.base import Artifact


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """Scores of one observer, or of all together (`joint`)."""

    observer: str
    scores: tuple[float, ...]
    low: tuple[float, ...]
    """Bootstrap interval over traces, 95 %."""
    high: tuple[float, ...]
    n_traces: int


@dataclass(frozen=True, kw_only=True)
class LayerScores(Artifact):
    """One attributor's score for every layer, per observer and joint."""

    kind: ClassVar[str] = "scores"
    attributor: str
    rows: tuple[ScoreRow, ...]
    left_out: dict[str, int] = field(default_factory=dict)

    def joint(self) -> ScoreRow:
        """Scores over all observers."""
        return next(row for row in self.rows if row.observer == "joint")


@dataclass(frozen=True, kw_only=True)
class LayerSelection(Artifact):
    """Layers to train. Two selections of the same layers are the same experiment from here on."""

    kind: ClassVar[str] = "selection"
    layers: tuple[int, ...]
    candidates: tuple[int, ...]
    reason: str
    zero_update: bool = False
    """Sham arm: the adapter is all zeros, the graft must change nothing."""
