"""Accuracy of two models on the same problems: the difference, its interval and an exact test."""

from __future__ import annotations

import math
from dataclasses import dataclass

from m3i.statistics.estimate import Estimate
from m3i.statistics.sign import sign_test


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """The result of the exact test of a paired change."""

    fixed: int
    """Incorrect before, correct after."""
    broken: int
    """Correct before, incorrect after."""
    p: float
    """Two-sided exact p; 1 without a discordant pair."""


def mcnemar(*, fixed: int, broken: int) -> McNemar:
    """Returns the exact conditional McNemar test, which is the sign test on the discordant pairs.

    Source: McNemar 1947, Psychometrika 12; the exact conditional form in Fagerland, Lydersen & Laake 2013, equation 3.
    """
    return McNemar(fixed=fixed, broken=broken, p=sign_test(wins=fixed, losses=broken).p)


def proportion(*, successes: int, n: int, level: float = 0.95) -> Estimate:
    """Returns a proportion with Wilson's score interval; for n = 0, value is None and the interval is 0 to 1.

    Source: Wilson 1927, JASA 22; recommended for small n by Brown, Cai & DasGupta 2001.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected 0 ≤ successes ≤ n")
    if n == 0:
        return Estimate(value=None, low=0.0, high=1.0, level=level, n=0, method="none")
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return Estimate(
        value=successes / n, low=float(interval.low), high=float(interval.high), level=level, n=n, method="Wilson"
    )


def paired_difference(*, fixed: int, broken: int, n: int, level: float = 0.95) -> Estimate:
    """Returns accuracy after minus accuracy before, with Tango's score interval.

    Args:
        fixed: Problems incorrect before and correct after.
        broken: Problems correct before and incorrect after.
        n: All problems, concordant ones included.
        level: Confidence level.

    Source: Tango 1998, Statistics in Medicine 17, equations 6 to 8: the differences d that the score test with the
    restricted maximum-likelihood estimate does not reject. The interval never leaves [−1, 1] and has a width even
    without discordant pairs; recommended by Fagerland, Lydersen & Laake 2014.
    """
    if fixed < 0 or broken < 0 or fixed + broken > n:
        raise ValueError(f"fixed = {fixed}, broken = {broken}, n = {n}: expected counts with fixed + broken ≤ n")
    if n == 0:
        return Estimate(value=None, low=-1.0, high=1.0, level=level, n=0, method="none")
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + level / 2))
    value = (fixed - broken) / n
    return Estimate(
        value=value,
        low=_tango_limit(fixed, broken, n, z, value, -1.0),
        high=_tango_limit(fixed, broken, n, z, value, 1.0),
        level=level,
        n=n,
        method="Tango score",
    )


def _tango_limit(fixed: int, broken: int, n: int, z: float, value: float, end: float) -> float:
    from scipy.optimize import brentq

    def excess(d: float) -> float:
        return _tango_statistic(fixed, broken, n, d) ** 2 - z**2

    # Just inside the ends: at d = ±1 itself the variance under the restriction is zero.
    edge = end * (1 - 1e-12)
    if abs(value - end) < 1e-12 or excess(edge) <= 0:
        return end
    return float(brentq(excess, value, edge, xtol=1e-12))


def _tango_statistic(fixed: int, broken: int, n: int, d: float) -> float:
    """Returns the score statistic of H0: difference = d. Source: Tango 1998, equations 6 and 7."""
    a = 2 * n
    b = -fixed - broken + (2 * n - fixed + broken) * d
    c = -broken * d * (1 - d)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + d * (1 - d))
    difference = fixed - broken - n * d
    if variance <= 0:
        return 0.0 if abs(difference) < 1e-12 else math.inf
    return difference / math.sqrt(variance)
