"""The layers that an attributor scores highest."""

from __future__ import annotations

from dataclasses import dataclass

from m3i import LayerSelection, SelectionRequest

from .candidates import ByScore, ranked, read_scores, spell


@dataclass(kw_only=True)
class TopLayers(ByScore):
    """Selects the k candidates with the highest joint score; of equal scores the lower layer is taken."""

    def select(self, request: SelectionRequest) -> LayerSelection:
        """Returns the top k; the reason states the scores of the last layer taken and of the next one."""
        pool = self.pool(request.info)
        scores = read_scores(self.attributor, request)
        order = ranked(scores, pool)
        joint = scores.joint().scores
        margin = (
            f"; the last of them scores {joint[order[self.k - 1]]:.3g}, the next layer {joint[order[self.k]]:.3g}"
            if self.k < len(order)
            else ""
        )
        return LayerSelection(
            layers=tuple(sorted(order[: self.k])),
            candidates=pool,
            reason=f"top {self.k} of {len(pool)} layers by {scores.attributor}: {spell(order[: self.k])}{margin}",
        )
