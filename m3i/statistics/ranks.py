"""Rank correlation: whether two quantities rise and fall together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """Spearman's rho with its permutation test."""

    n: int
    """Number of units."""
    rho: float | None
    """−1 to 1; None where either quantity never varies, or with fewer than three units."""
    p: float | None
    """Two-sided: share of permutations with a rho at least as far from 0; at least 1 / (draws + 1)."""


def rank_correlation(a: Sequence[float], b: Sequence[float], *, draws: int = 2000, seed: int = 0) -> RankCorrelation:
    """Returns Spearman's rho over independent units (ties share their mean rank), with a permutation p.

    Args:
        a: One quantity of each unit.
        b: The other.
        draws: Number of permutations.
        seed: Seed of the permutations.

    Source: Spearman 1904; the Monte-Carlo p counts the observed order among the draws (Phipson & Smyth 2010,
    1603.05766, equation 2), so it is never 0.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values: expected equally many of both")
    from scipy.stats import rankdata

    n = len(a)
    if n < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return RankCorrelation(n=n, rho=None, p=None)
    centred = [ranks - ranks.mean() for ranks in (rankdata(a), rankdata(b))]
    x_N, y_N = (ranks / np.sqrt((ranks**2).sum()) for ranks in centred)
    rho = float(x_N @ y_N)
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.permutation(y_N) @ x_N for _ in range(draws)])
    extreme = int((np.abs(drawn) >= abs(rho) - 1e-12).sum())
    return RankCorrelation(n=n, rho=max(-1.0, min(1.0, rho)), p=(1 + extreme) / (1 + draws))
