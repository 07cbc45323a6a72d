"""Every candidate layer: what training without any choice of layers does."""

from __future__ import annotations

from dataclasses import dataclass

from m3i import LayerSelection, SelectionRequest

from .candidates import FromCandidates, spell


@dataclass(kw_only=True)
class AllLayers(FromCandidates):
    """All candidates; with `candidates=all` every layer of the target."""

    def select(self, request: SelectionRequest) -> LayerSelection:
        """The candidates themselves."""
        pool = self.pool(request.info)
        return LayerSelection(layers=pool, candidates=pool, reason=f"all {len(pool)} candidates: {spell(pool)}")
