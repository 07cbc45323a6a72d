"""The sham arm: every stage runs, with a zero update."""

from __future__ import annotations

from dataclasses import dataclass

from m3i import LayerSelection, SelectionRequest

from .candidates import ByScore, ranked, read_scores, spell


@dataclass(kw_only=True)
class ShamLayers(ByScore):
    """Applies a zero update to the layers that `attribution` would train, through the same graft.

    Without scores it takes the first k candidates: a zero update is zero anywhere.
    """

    def select(self, request: SelectionRequest) -> LayerSelection:
        """Returns the layers of a zero update: the export must equal the base, and every judgement must be a tie."""
        pool = self.pool(request.info)
        if self.attributor or request.scores:
            scores = read_scores(self.attributor, request)
            layers = ranked(scores, pool)[: self.k]
            whose = f"the top {self.k} layers by {scores.attributor}"
        else:
            layers = list(pool[: self.k])
            whose = f"the first {self.k} candidates"
        return LayerSelection(
            layers=tuple(sorted(layers)),
            candidates=pool,
            reason=f"sham: a zero update on {whose}, {spell(layers)}",
            zero_update=True,
        )
