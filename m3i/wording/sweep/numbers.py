"""Values of T and their differences in words, by kind of endpoint: `score` or `accuracy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3i.wording.formats import POINTS, percent, points


def level(kind: str, value: float) -> str:
    """T itself: `0.531`, or `71.4 %` for accuracy."""
    return f"{100 * value:.1f}\u00a0%" if kind == "accuracy" else f"{value:.3f}"


def shift(kind: str, value: float) -> str:
    """A difference of T with its sign: `+0.024`, or `+2.4 points` for accuracy."""
    if kind == "accuracy":
        return "0.0\u00a0points" if abs(value) < 0.0005 else points(value)
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}".replace("-", "−")


def interval(kind: str, estimate: Mapping[str, Any]) -> str:
    """The interval of a difference: `95 % interval −0.004 to +0.013`."""
    low = shift(kind, estimate["low"]).removesuffix(POINTS)
    return f"{percent(estimate['level'])} interval {low} to {shift(kind, estimate['high'])}"


def magnitude(kind: str, value: float) -> str:
    """A size without a sign."""
    return shift(kind, abs(value)).lstrip("+")
