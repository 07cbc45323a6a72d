"""A selector that needs no score."""

from dataclasses import dataclass

import m3i
from m3i import LayerSelection, SelectionRequest, TargetInfo


@dataclass(kw_only=True)
class EvenlySpaced(m3i.Component):
    """k layers, evenly spaced over the candidates."""

    k: int = 2
    """Number of layers."""

    def __post_init__(self) -> None:
        """Checks the values."""
        m3i.require(self.k >= 1, "selector.k", self.k, "at least 1")

    def check(self, info: TargetInfo) -> None:
        """Refuses a k that the target cannot give."""
        n = len(info.default_candidates())
        m3i.require(self.k <= n, "selector.k", self.k, f"at most {n}, the candidate layers of {info.name}")

    def select(self, request: SelectionRequest) -> LayerSelection:
        """The selection."""
        candidates = request.info.default_candidates()
        last = len(candidates) - 1
        chosen = {candidates[round(i * last / max(1, self.k - 1))] for i in range(self.k)}
        return LayerSelection(layers=tuple(sorted(chosen)), candidates=candidates, reason="evenly spaced")
