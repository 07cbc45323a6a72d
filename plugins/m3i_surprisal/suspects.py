"""Layers to suspect at a token: those that do something else there than in right traces.

Letters: L layers, S predicted tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3i import Telemetry, Trace

from .lines import classes_of

MIN_COLUMNS = 20
"""Right tokens of the same class below which the baseline is all right tokens."""


class LayerBaseline:
    """What layers do at the tokens of right traces, and how far a token is from it.

    Of a layer's logit lens the *change* from the layer before counts, not the level: a token that the model finds
    unlikely has a bad rank in every late layer, and only the layer in which it got there is suspect.
    """

    def __init__(self, telemetry: Telemetry, right: Sequence[Trace]) -> None:
        """Collects the columns of right traces that were measured."""
        self.telemetry = telemetry
        self.measured = set(telemetry.trace_ids)
        self.features = _features(telemetry)
        columns: list[int] = []
        classes: list[str] = []
        for trace in right:
            if trace.id in self.measured:
                span = telemetry.columns(trace.id)
                columns += range(span.start, span.stop)
                classes += classes_of(trace)
        self.columns = np.array(columns, dtype=int)
        self.classes = np.array(classes)

    def deviation(self, trace: Trace, token: int) -> np.ndarray | None:
        """How far each layer is from right traces at one completion token; None without a measurement or a baseline.

        The mean of three z scores against right tokens of the same class (digit, letter, ...) at the same layer: rise
        of the lens rank (bits) and of the lens entropy (nats) over the layer before, each only where it is worse than
        usual, and the logarithm of the relative residual update, either way.
        """
        if trace.id not in self.measured or len(self.columns) < MIN_COLUMNS:
            return None
        column = self.telemetry.columns(trace.id).start + token
        alike = self.columns[self.classes == classes_of(trace)[token]]
        columns = alike if len(alike) >= MIN_COLUMNS else self.columns
        z = {}
        for name, values_LS in self.features.items():
            right_LS = values_LS[:, columns]
            # A feature that never varies in right traces says nothing about how large a deviation is.
            spread_L = np.maximum(right_LS.std(axis=1), 1e-3)
            z[name] = (values_LS[:, column] - right_LS.mean(axis=1)) / spread_L
        worse = np.maximum(z["rank"], 0) + np.maximum(z["entropy"], 0)
        return np.asarray((worse + np.abs(z["update"])) / 3)

    def suspects(self, trace: Trace, token: int, n: int) -> tuple[int, ...]:
        """The n most deviating layers, ascending; none where nothing was measured."""
        deviation_L = self.deviation(trace, token)
        if deviation_L is None:
            return ()
        return tuple(sorted(int(i) for i in np.argsort(-deviation_L, kind="stable")[:n]))


def _features(telemetry: Telemetry) -> dict[str, np.ndarray]:
    bits_LS = np.log2(1.0 + telemetry.lens_rank_LS.astype(float))
    entropy_LS = telemetry.lens_entropy_LS.astype(float)
    zero = np.zeros_like(bits_LS[:1])
    return {
        "rank": np.diff(bits_LS, axis=0, prepend=zero),
        "entropy": np.diff(entropy_LS, axis=0, prepend=zero),
        "update": np.log(np.maximum(telemetry.update_norm_LS.astype(float), 1e-9)),
    }
