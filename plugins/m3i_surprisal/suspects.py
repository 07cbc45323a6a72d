"""Layers to suspect at a token: those that behave differently there than in correct traces.

Letters: L layers, S predicted tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3i import Telemetry, Trace

from .lines import classes_of

MIN_COLUMNS = 20
"""With fewer tokens of the same class than this in correct traces, the baseline is all of their tokens."""


class LayerBaseline:
    """What layers do at the tokens of correct traces, and how far a given token is from that.

    For the logit lens, the *change* from the previous layer counts, not the level: a token that the model finds
    unlikely has a bad rank in every late layer, and only the layer in which it got there is suspect.
    """

    def __init__(self, telemetry: Telemetry, right: Sequence[Trace]) -> None:
        """Collects the measured columns of correct traces."""
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
        """How far each layer is from correct traces at one completion token; None without a measurement or a baseline.

        The mean of three z scores against tokens of the same class (digit, letter, ...) in correct traces, at the same
        layer: the rise of the lens rank (bits) and of the lens entropy (nats) over the previous layer, each only where
        it is worse than usual, and the logarithm of the relative residual update, in either direction.
        """
        if trace.id not in self.measured or len(self.columns) < MIN_COLUMNS:
            return None
        column = self.telemetry.columns(trace.id).start + token
        alike = self.columns[self.classes == classes_of(trace)[token]]
        columns = alike if len(alike) >= MIN_COLUMNS else self.columns
        z = {}
        for name, values_LS in self.features.items():
            right_LS = values_LS[:, columns]
            # A feature that never varies in correct traces gives no scale for a deviation.
            spread_L = np.maximum(right_LS.std(axis=1), 1e-3)
            z[name] = (values_LS[:, column] - right_LS.mean(axis=1)) / spread_L
        worse = np.maximum(z["rank"], 0) + np.maximum(z["entropy"], 0)
        return np.asarray((worse + np.abs(z["update"])) / 3)

    def suspects(self, trace: Trace, token: int, n: int) -> tuple[int, ...]:
        """The n layers that deviate most, ascending; none without a measurement or a baseline."""
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
