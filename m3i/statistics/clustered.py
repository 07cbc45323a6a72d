"""A proportion over rows that come in clusters (several samples of one problem)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from m3i.statistics.estimate import Estimate
from m3i.statistics.paired import proportion


def clustered_proportion(*, clusters: Sequence[str], successes: Sequence[bool], level: float = 0.95) -> Estimate:
    """Returns a proportion with Wilson's interval at the effective number of rows; the cluster is the unit.

    n rows are worth n / deff independent ones. The design effect deff, the variance over clusters relative to the
    binomial one, is estimated from the data and is at least 1. Where it cannot be estimated because all rows are alike,
    each cluster counts as one row. With one row per cluster this is Wilson's interval. Student's t replaces the normal
    quantile to allow for few clusters.

    Args:
        clusters: Cluster (problem id) of each row.
        successes: Value of each row.
        level: Confidence level.

    Returns:
        The estimate with n = number of rows; without rows, value is None and the interval is 0 to 1.

    Source: Rao & Scott 1992, Biometrics 48, "A simple method for the analysis of clustered binary data" (effective
    sample size); Korn & Graubard 1998, Survey Methodology 24 (t quantile with clusters − 1 degrees of freedom).
    """
    if len(clusters) != len(successes):
        raise ValueError(f"{len(clusters)} clusters for {len(successes)} values: expected one cluster per value")
    n = len(successes)
    names, index_N = np.unique(np.asarray(clusters), return_inverse=True)
    n_clusters = len(names)
    if n == 0 or n_clusters == n:
        return proportion(successes=sum(map(bool, successes)), n=n, level=level)
    from scipy.stats import norm, t

    value_N = np.asarray(successes, dtype=float)
    share = float(value_N.mean())
    if n_clusters == 1:
        effective, quantile = 1.0, float(norm.ppf(0.5 + level / 2))
    else:
        quantile = float(t.ppf(0.5 + level / 2, n_clusters - 1))
        effective = float(n_clusters)
        if 0 < share < 1:
            residual_C = np.bincount(index_N, weights=value_N - share)
            variance = n_clusters / (n_clusters - 1) * float((residual_C**2).sum()) / n**2
            effective = n / max(variance * n / (share * (1 - share)), 1.0)
    low, high = wilson(share, effective, quantile)
    method = f"Wilson, {n_clusters} problems as units"
    return Estimate(value=share, low=low, high=high, level=level, n=n, method=method)


def wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Returns Wilson's score interval for a number of trials that need not be whole.

    Source: Wilson 1927, JASA 22; Brown, Cai & DasGupta 2001, Statistical Science 16, equation 4.
    """
    z2 = quantile**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = quantile / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
