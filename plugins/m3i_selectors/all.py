"""All candidate layers: the control without a choice of layers."""

from __future__ import annotations

from dataclasses import dataclass

from m3i import LayerSelection, SelectionRequest

from .candidates import FromCandidates, spell


@dataclass(kw_only=True)
class AllLayers(FromCandidates):
    """Selects all candidates; with `candidates=all`, every layer of the target."""

    def select(self, request: SelectionRequest) -> LayerSelection:
        """Returns the candidates themselves."""
        pool = self.pool(request.info)
        return LayerSelection(layers=pool, candidates=pool, reason=f"all {len(pool)} candidates: {spell(pool)}")
