"""What a sweep of this size could have detected, and how many problems, seeds and controls an effect would need.

Ties among problems enter through the standard deviation of problem-level scores; `power.required_n` gives the exact
answer for the sign test of one arm.
"""

from __future__ import annotations

import functools
import math

import numpy as np


def tied_effect(*, share: float, tie_rate: float) -> tuple[float, float]:
    """Returns the mean score's shift from ½ and the standard deviation of a problem's score, at one comparison each.

    Args:
        share: Share of wins among decided problems, 0 to 1.
        tie_rate: Share of undecided problems, 0 to 1.

    Raises:
        ValueError: A value is out of range.

    Source: moments of the trinomial score 1, ½, 0.
    """
    for name, value in (("share", share), ("tie_rate", tie_rate)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} = {value}: expected a number from 0 to 1")
    shift = (1 - tie_rate) * (share - 0.5)
    return shift, math.sqrt(max(0.0, (1 - tie_rate) / 4 - shift**2))


def power_mean(*, effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Returns the power of the two-sided t test of a mean score over n problems.

    Args:
        effect: True shift of the mean score from its null value, in units of the score.
        sd: Standard deviation of problem-level scores, > 0 (`ScoreError.sd`, or `tied_effect`).
        n: Problems.
        alpha: Level of the test.

    Raises:
        ValueError: A number is out of range.

    Source: Cohen 1988, Statistical Power Analysis, chapter 2 (noncentral t).
    """
    _check(sd=sd, alpha=alpha)
    if n < 2:
        return 0.0
    from scipy.stats import ncf, t

    # t squared is F: scipy's noncentral F stays accurate where its noncentral t gives NaN. It is wrong at exactly 0.
    shift = max(1e-9, abs(effect) * math.sqrt(n) / sd)
    return float(ncf.sf(float(t.ppf(1 - alpha / 2, n - 1)) ** 2, 1, n - 1, shift**2))


def detectable_mean(*, sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Returns the minimum detectable effect, the smallest shift of the mean score found with `power`; None for n < 2.

    Args:
        sd: Standard deviation of problem-level scores, > 0.
        n: Problems.
        power: Between alpha and 1.
        alpha: Level of the two-sided t test.

    Raises:
        ValueError: A number is out of range.

    Source: Bloom 1995, Evaluation Review 19, minimum detectable effects; here solved with the noncentral t.
    """
    _check(sd=sd, alpha=alpha, power=power)
    if n < 2:
        return None
    from scipy.optimize import brentq

    def gap(effect: float) -> float:
        return power_mean(effect=effect, sd=sd, n=n, alpha=alpha) - power

    high = sd / math.sqrt(n)
    while gap(high) < 0:
        high *= 2
    return float(brentq(gap, 0.0, high, xtol=1e-12 * sd, rtol=1e-10))


def required_problems(
    *, effect: float, sd: float, power: float = 0.8, alpha: float = 0.05, limit: int = 1_000_000
) -> int | None:
    """Returns the number of problems at which the t test of the mean score finds `effect` with `power`.

    It is None above `limit` or for effect 0.

    Args:
        effect: Shift of the mean score, in units of the score.
        sd: Standard deviation of problem-level scores, > 0.
        power: Between alpha and 1.
        alpha: Level of the two-sided test.
        limit: The largest answer given.

    Raises:
        ValueError: A number is out of range.

    Source: as `power_mean`. For 60/40 at 67 % ties it gives 589; the exact sign test (`required_n`) needs 619.
    """
    _check(sd=sd, alpha=alpha, power=power)
    low, high = 1, 2
    while power_mean(effect=effect, sd=sd, n=high, alpha=alpha) < power:
        low, high = high, high * 2
        if low > limit:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if power_mean(effect=effect, sd=sd, n=middle, alpha=alpha) >= power else (middle, high)
        )
    return high if high <= limit else None


def power_randomization(*, effect: float, between: float, within: float, controls: int, alpha: float = 0.05) -> float:
    """Returns the power of the one-sided randomization test when one set lies `effect` above the mean of all sets.

    Normal approximation: a control's T is N(0, between + within); that one set is fixed and its T is
    N(effect, within). The test rejects where at most c = floor(alpha (R + 1)) − 1 controls reach the attributed T, so
    the power is the mean of P(Binomial(R, P(control ≥ T)) ≤ c) over T. Noise common to all arms (the problems
    themselves) cancels and belongs in neither variance.

    Args:
        effect: True mean score of the attributed set minus the mean over all sets.
        between: Variance of true means between layer sets (`VarianceSplit.value("draw")`), ≥ 0.
        within: Variance of T around its set's true mean (`VarianceSplit.within_draw`), ≥ 0; not both 0.
        controls: R.
        alpha: Level; below 1 / (R + 1) the power is 0.

    Raises:
        ValueError: A number is out of range.

    Source: Hope 1968, JRSS B 30 (power of a Monte-Carlo test of few draws); the integral by Gauss-Hermite quadrature.
    """
    _check(alpha=alpha)
    if between < 0 or within < 0 or not between + within > 0:
        raise ValueError(f"between = {between}, within = {within}: expected variances ≥ 0, not both 0")
    if controls < 1:
        raise ValueError(f"controls = {controls}: expected 1 or more")
    allowed = math.floor(alpha * (controls + 1) + 1e-9) - 1
    if allowed < 0:
        return 0.0
    from scipy.stats import binom, norm

    node_Q, weight_Q = _quadrature(201)
    t_Q = effect + math.sqrt(within) * node_Q
    reach_Q = norm.sf(t_Q / math.sqrt(between + within))
    return float(np.sum(weight_Q * binom.cdf(allowed, controls, reach_Q)) / weight_Q.sum())


def required_controls(
    *, effect: float, between: float, within: float, power: float = 0.8, alpha: float = 0.05, limit: int = 9999
) -> int | None:
    """Returns the smallest R with the given power, among those with alpha (R + 1) whole; None above `limit`.

    More controls only sharpen the threshold; they do not make T less noisy. The answer can therefore be None at any
    limit, and then more problems or training seeds are needed.

    Args:
        effect: As in `power_randomization`.
        between: As in `power_randomization`.
        within: As in `power_randomization`.
        power: Between alpha and 1.
        alpha: Level.
        limit: The largest R considered.

    Raises:
        ValueError: A number is out of range.

    Source: as `power_randomization`.
    """
    _check(alpha=alpha, power=power)

    def enough(multiple: int) -> bool:
        r = controls_at(multiple)
        return power_randomization(effect=effect, between=between, within=within, controls=r, alpha=alpha) >= power

    def controls_at(multiple: int) -> int:
        return math.ceil(multiple / alpha - 1e-9) - 1

    low, high = 0, 1
    while controls_at(high) <= limit and not enough(high):
        low, high = high, high * 2
    last = math.floor(alpha * (limit + 1) + 1e-9)
    if controls_at(high) > limit:
        if last <= low or not enough(last):
            return None
        high = last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return controls_at(high)


def detectable_shift(
    *, between: float, within: float, controls: int, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """Returns the smallest `effect` found with `power` (`power_randomization`); None where R is too small for alpha.

    Args:
        between: As in `power_randomization`.
        within: As in `power_randomization`.
        controls: R.
        power: Between alpha and 1.
        alpha: Level.

    Raises:
        ValueError: A number is out of range.

    Source: as `power_randomization`.
    """
    _check(alpha=alpha, power=power)

    def gap(effect: float) -> float:
        found = power_randomization(effect=effect, between=between, within=within, controls=controls, alpha=alpha)
        return found - power

    if math.floor(alpha * (controls + 1) + 1e-9) < 1:
        return None
    scale = math.sqrt(between + within)
    high = scale
    while gap(high) < 0:
        high *= 2
    if gap(0.0) >= 0:
        return 0.0
    from scipy.optimize import brentq

    return float(brentq(gap, 0.0, high, xtol=1e-9 * scale))


@functools.cache
def _quadrature(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss-Hermite rule; to solve for them takes longer than to use them."""
    return np.polynomial.hermite_e.hermegauss(n)


def _check(*, alpha: float, sd: float = 1.0, power: float | None = None) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: expected a number between 0 and 1")
    if not 0 < sd < math.inf:
        raise ValueError(f"sd = {sd}: expected a number above 0")
    if power is not None and not alpha < power < 1:
        raise ValueError(f"power = {power}: expected a number between alpha = {alpha} and 1")
