"""The layers that an attributor scores lowest: the control against 'any k layers would do'."""

from __future__ import annotations

from dataclasses import dataclass

from m3i import LayerSelection, SelectionRequest

from .candidates import ByScore, ranked, read_scores, spell


@dataclass(kw_only=True)
class BottomLayers(ByScore):
    """Selects the k candidates with the lowest joint score; of equal scores the higher layer is taken."""

    def select(self, request: SelectionRequest) -> LayerSelection:
        """Returns the bottom k of the ranking of which `attribution` takes the top."""
        pool = self.pool(request.info)
        scores = read_scores(self.attributor, request)
        layers = ranked(scores, pool)[-self.k :]
        return LayerSelection(
            layers=tuple(sorted(layers)),
            candidates=pool,
            reason=f"bottom {self.k} of {len(pool)} layers by {scores.attributor}: {spell(layers)}",
        )
