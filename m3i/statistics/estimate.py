"""A number with its interval."""

from __future__ import annotations

from dataclasses import dataclass

ALPHA = 0.05
"""Significance level of the tests of a single run; a sweep registers its own."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A point estimate and its confidence interval."""

    value: float | None
    """None where there are no data."""
    low: float
    high: float
    level: float
    """Confidence level, 0.95 for a 95 % interval."""
    n: int
    """Number of units behind the estimate."""
    method: str
    """Name of the interval, for the report."""
    degenerate: bool = False
    """All units have the same value, so the interval's width says nothing about the uncertainty."""
