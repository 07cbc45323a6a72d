"""The mean of clustered rows with an interval that resamples clusters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3i.statistics.estimate import Estimate


def cluster_mean(
    *, clusters: Sequence[str], values: Sequence[float], level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Estimate:
    """Returns the mean over all rows, with a percentile bootstrap interval that resamples whole clusters (problems).

    Args:
        clusters: Cluster (problem id) of each row.
        values: Value of each row, e.g. 1, 0.5, 0 for a win, a tie, a loss.
        level: Confidence level.
        draws: Number of bootstrap resamples.
        seed: Seed of the resampling, so that a report is reproducible.

    Returns:
        The estimate with n = number of clusters; `degenerate` when every cluster has the same mean (the interval then
        has no width, which does not mean certainty). Without rows, value is None and the interval is 0 to 1.

    Source: Efron & Tibshirani 1993, section 13.3 (percentile interval); Davison & Hinkley 1997, section 3.8 (resample
    clusters, keep their rows). With few clusters the interval is somewhat too narrow.
    """
    if len(clusters) != len(values):
        raise ValueError(f"{len(clusters)} clusters for {len(values)} values: expected one cluster per value")
    if not values:
        return Estimate(value=None, low=0.0, high=1.0, level=level, n=0, method="none", degenerate=True)
    _, index_N = np.unique(np.asarray(clusters), return_inverse=True)
    count_C = np.bincount(index_N).astype(float)
    sum_C = np.bincount(index_N, weights=np.asarray(values, dtype=float))
    n = len(count_C)
    rng = np.random.default_rng(seed)
    means_B = np.empty(draws)
    block = max(1, 2_000_000 // n)  # keeps the index matrix below 16 MB
    for start in range(0, draws, block):
        picks_BC = rng.integers(n, size=(min(block, draws - start), n))
        means_B[start : start + block] = sum_C[picks_BC].sum(axis=1) / count_C[picks_BC].sum(axis=1)
    low, high = np.quantile(means_B, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=float(sum_C.sum() / count_C.sum()),
        low=float(low),
        high=float(high),
        level=level,
        n=n,
        method=f"problem bootstrap, {draws} draws",
        degenerate=bool(np.allclose(sum_C / count_C, sum_C[0] / count_C[0])),
    )
