"""Layer scores, and the selected layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from m3i.artifacts.base import Artifact


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """Layer scores from one observer's findings, or from those of all observers (`joint`)."""

    observer: str
    scores: tuple[float, ...]
    low: tuple[float, ...]
    """Lower end of the 95 % bootstrap interval over traces; `high` is the upper end."""
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
        """Returns the scores over all observers."""
        return next(row for row in self.rows if row.observer == "joint")


@dataclass(frozen=True, kw_only=True)
class LayerSelection(Artifact):
    """The layers to train. From here on, two selections of the same layers are the same experiment."""

    kind: ClassVar[str] = "selection"
    layers: tuple[int, ...]
    candidates: tuple[int, ...]
    reason: str
    zero_update: bool = False
    """Sham arm: the adapter is all zeros, so the graft must change nothing."""
