"""Gatekeeping: the primary endpoint is tested first, the others only if it is significant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m3i.statistics.holm import holm


@dataclass(frozen=True, kw_only=True)
class Gatekept:
    """What may be claimed at a family-wise error of alpha."""

    primary: bool
    """The primary endpoint is significant: p ≤ alpha, uncorrected."""
    secondary: tuple[bool, ...]
    """Which secondary endpoints are significant; none unless the primary one is."""
    adjusted: tuple[float | None, ...]
    """Adjusted p of each secondary endpoint, max(primary p, Holm's p): `secondary` holds where it is at most alpha."""
    alpha: float


def gatekept(primary_p: float, secondary_ps: Sequence[float | None], alpha: float = 0.05) -> Gatekept:
    """Tests the primary endpoint alone at alpha, then the secondary ones with Holm's correction.

    The primary test may spend all of alpha, since no other endpoint can be significant unless it is. With 19 controls,
    p cannot be below 0.05, and any correction of the primary p would make significance impossible.

    Args:
        primary_p: p of the endpoint named before the run.
        secondary_ps: p of each other endpoint; None where no test was made; it is not counted.
        alpha: Family-wise error rate, in (0, 1).

    Raises:
        ValueError: A p outside [0, 1] or an alpha outside (0, 1).

    Source: Westfall & Krishen 2001, Journal of Statistical Planning and Inference 99 (serial gatekeeping); Holm 1979.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: expected a number between 0 and 1")
    for p in (primary_p, *secondary_ps):
        if p is not None and not 0 <= p <= 1:
            raise ValueError(f"p = {p}: expected a number from 0 to 1")
    adjusted = tuple(None if p is None else max(p, primary_p) for p in holm(secondary_ps))
    return Gatekept(
        primary=primary_p <= alpha,
        secondary=tuple(p is not None and p <= alpha for p in adjusted),
        adjusted=adjusted,
        alpha=alpha,
    )
