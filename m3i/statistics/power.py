"""What the sign test could have detected: exact power, the smallest detectable effect and the required n.

The number of decided problems is itself random, Binomial(n, 1 − tie rate); the power is the
mean of the exact conditional powers over it. Source: Dixon & Mood 1946 for the test;
Chow, Shao & Wang 2008, Sample Size Calculations in Clinical Research, chapter 5, for exact
binomial power.
"""

from __future__ import annotations

import numpy as np


def power_sign_test(*, n: int, share: float, tie_rate: float, alpha: float = 0.05) -> float:
    """Returns the probability that the exact two-sided sign test rejects at `alpha`.

    Args:
        n: Problems, ties included.
        share: True share of the tuned model among decided problems, 0 to 1.
        tie_rate: Share of undecided problems, 0 to 1.
        alpha: Level of the test.

    Raises:
        ValueError: A value is out of range.
    """
    _check(share, tie_rate, alpha)
    if n < 0:
        raise ValueError(f"n = {n}: expected 0 or more")
    if n == 0 or tie_rate == 1:
        return 0.0
    from scipy.stats import binom

    mean, sd = n * (1 - tie_rate), np.sqrt(n * tie_rate * (1 - tie_rate))
    decisive_D = np.arange(max(0, int(mean - 9 * sd) - 1), min(n, int(mean + 9 * sd) + 1) + 1)
    # Largest count of losses that still rejects: P(X ≤ critical) ≤ alpha / 2 under one half.
    critical_D = binom.ppf(alpha / 2, decisive_D, 0.5)
    critical_D = np.where(binom.cdf(critical_D, decisive_D, 0.5) <= alpha / 2, critical_D, critical_D - 1)
    rejects_D = binom.cdf(critical_D, decisive_D, share) + binom.cdf(critical_D, decisive_D, 1 - share)
    rejects_D = np.where((critical_D >= 0) & (decisive_D > 0), rejects_D, 0.0)
    return float(min(1.0, np.sum(binom.pmf(decisive_D, n, 1 - tie_rate) * rejects_D)))


def detectable_share(*, n: int, tie_rate: float, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Returns the smallest share above ½ that the test detects with `power`; None if even 100 % is not detected."""
    if power_sign_test(n=n, share=1.0, tie_rate=tie_rate, alpha=alpha) < power:
        return None
    low, high = 0.5, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if power_sign_test(n=n, share=middle, tie_rate=tie_rate, alpha=alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def required_n(
    *, share: float, tie_rate: float, power: float = 0.8, alpha: float = 0.05, limit: int = 1_000_000
) -> int | None:
    """Returns the problems (ties included) at which the test detects `share` with `power`; None above `limit`.

    Power rises with n except for the small saw-teeth of a discrete test. The search is a bisection, so the answer can
    lie one tooth (a few problems) away from the first n that reaches `power`.
    """
    _check(share, tie_rate, alpha)
    if share == 0.5 or tie_rate == 1:
        return None
    low, high = 1, 2
    while power_sign_test(n=high, share=share, tie_rate=tie_rate, alpha=alpha) < power:
        low, high = high, high * 2
        if low > limit:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if power_sign_test(n=middle, share=share, tie_rate=tie_rate, alpha=alpha) >= power:
            high = middle
        else:
            low = middle
    return high if high <= limit else None


def _check(share: float, tie_rate: float, alpha: float) -> None:
    for name, value in (("share", share), ("tie_rate", tie_rate)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} = {value}: expected a number from 0 to 1")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: expected a number between 0 and 1")
