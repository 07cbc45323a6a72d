"""An attributor that reads the telemetry alone."""

from dataclasses import dataclass

import numpy as np

import m3i
from m3i import AttributionRequest, AttributionRows


@dataclass(kw_only=True)
class UpdateSize(m3i.Component):
    """Scores a layer by its residual update at the wrong token, against its mean over the trace."""

    def attribute(self, request: AttributionRequest) -> AttributionRows:
        """One row a contrast whose trace was measured."""
        telemetry, rows, observers, traces = request.telemetry, [], [], []
        for contrast in request.contrasts:
            if contrast.trace_id not in telemetry.trace_ids:
                continue
            columns = telemetry.update_norm_LS[:, telemetry.columns(contrast.trace_id)]
            rows.append(columns[:, contrast.position] - columns.mean(axis=1))
            observers.append(contrast.observer)
            traces.append(contrast.trace_id)
        left_out = {"no telemetry": len(request.contrasts) - len(rows)}
        values = np.stack(rows) if rows else np.zeros((0, telemetry.update_norm_LS.shape[0]))
        return AttributionRows(observers=observers, trace_ids=traces, values_NL=values, left_out=left_out)
