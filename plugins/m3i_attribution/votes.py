"""Layers named by the observers themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from m3i import AttributionRequest, AttributionRows, Component


@dataclass(kw_only=True)
class Votes(Component):
    """Counts the layers that observers suspect, however they came to suspect them; runs no model.

    A layer's value in a trace is the share of the observer's findings there that name it, so a talkative observer has
    no more votes than a terse one. Traces in which an observer names no layer are left out and counted.
    """

    libraries: ClassVar[tuple[str, ...]] = ()

    def attribute(self, request: AttributionRequest) -> AttributionRows:
        """Returns one row per (observer, trace) with at least one named layer."""
        n_layers = request.target.info.n_layers
        observers: list[str] = []
        trace_ids: list[str] = []
        values: list[np.ndarray] = []
        left_out: Counter[str] = Counter()
        for observer, audit in request.audits.items():
            layers_of: dict[str, list[tuple[int, ...]]] = {}
            for finding in audit.findings:
                layers_of.setdefault(finding.trace_id, []).append(finding.layers)
            for trace_id, named in layers_of.items():
                votes_L = np.zeros(n_layers)
                for layers in named:
                    inside = [layer for layer in set(layers) if 0 <= layer < n_layers]
                    left_out[f"{observer}: a named layer does not exist"] += len(set(layers)) - len(inside)
                    votes_L[inside] += 1
                if not votes_L.any():
                    left_out[f"{observer}: names no layer"] += 1
                    continue
                observers.append(observer)
                trace_ids.append(trace_id)
                values.append(votes_L / len(named))
        return AttributionRows(
            observers=observers,
            trace_ids=trace_ids,
            values_NL=np.array(values).reshape(len(values), n_layers),
            left_out={reason: n for reason, n in left_out.items() if n},
        )
