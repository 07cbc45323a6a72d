"""Equivalence tests: whether an effect is too small to matter, so that a null is a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m3i.statistics.scores import score_error
from m3i.statistics.sign import unseen_share

LEAST_DECIDED = 6
"""Smallest number of decided problems for a t test. With fewer, the standard error misses wins too rare to have
occurred yet, and the test would declare equivalence despite them (simulated: `python -m bench.sweep_statistics`)."""


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """The result of two one-sided tests."""

    p_lower: float
    """p of "the true value is at most neutral − margin"."""
    p_upper: float
    """p of "the true value is at least neutral + margin"."""
    p: float
    """The larger of the two; equivalence is shown where it is at most alpha."""
    equivalent: bool
    low: float
    """Interval at 1 − 2 alpha: it lies within neutral ± margin exactly where `equivalent` holds."""
    high: float
    margin: float
    alpha: float
    neutral: float


def tost(
    *, value: float, se: float, df: float, margin: float, alpha: float = 0.05, neutral: float = 0.0
) -> Equivalence:
    """Tests one estimate against neutral ± margin with two one-sided t tests.

    Args:
        value: The estimate, e.g. `ControlEffect.difference.value`.
        se: Its standard error, > 0.
        df: Degrees of freedom, > 0; `math.inf` for a normal estimate.
        margin: The largest difference that does not matter, > 0, in the units of value; named before the run.
        alpha: Level of each one-sided test, between 0 and ½.
        neutral: The value of no effect.

    Raises:
        ValueError: A number is out of range. A standard error of 0 is refused, since it would prove equality.

    Source: Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15, the two one-sided tests procedure.
    """
    for name, number in (("margin", margin), ("se", se), ("df", df)):
        if not number > 0:
            raise ValueError(f"{name} = {number}: expected a number above 0")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha = {alpha}: expected a number between 0 and 0.5")
    from scipy.stats import t

    offset = value - neutral
    half = float(t.ppf(1 - alpha, df)) * se
    return Equivalence(
        p_lower=(p_lower := float(t.sf((offset + margin) / se, df))),
        p_upper=(p_upper := float(t.cdf((offset - margin) / se, df))),
        p=max(p_lower, p_upper),
        equivalent=max(p_lower, p_upper) <= alpha,
        low=value - half,
        high=value + half,
        margin=margin,
        alpha=alpha,
        neutral=neutral,
    )


def equivalence(
    *,
    problems: Sequence[str],
    scores: Sequence[float],
    margin: float,
    alpha: float = 0.05,
    neutral: float = 0.5,
    reach: float = 0.5,
) -> Equivalence:
    """Tests a mean score against neutral ± margin (TOST), with the problem as the unit.

    n ties in n problems do not prove equality: p is then exact, the largest probability of n ties under a shift of
    `margin`, (1 − margin / reach)^n. At a margin of 0.05, 12 tied problems do not show equivalence (p = 0.28), 30 do
    (p = 0.042).

    Args:
        problems: Problem id of each score; rows of one problem stay together.
        scores: 1, ½, 0 for a win, a tie, a loss.
        margin: In units of the score, in (0, reach), e.g. 0.05: named before the run.
        alpha: Level of each one-sided test.
        neutral: Score of a tie.
        reach: Largest distance of a score from `neutral`.

    Raises:
        ValueError: As `score_error`; a margin outside (0, reach) or an alpha outside (0, ½).

    Source: Schuirmann 1987, with the skewness-corrected t of `score_error`; all tied: Hanley & Lippman-Hand 1983, since
    a shift of the mean by `margin` takes a share of at least margin / reach decided problems.
    """
    if not 0 < margin < reach:
        raise ValueError(
            f"margin = {margin}: expected a number between 0 and {reach}, the largest distance from {neutral}"
        )
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha = {alpha}: expected a number between 0 and 0.5")
    from scipy.stats import t

    error = score_error(problems=problems, scores=scores, neutral=neutral, reach=reach)
    if error.decided:
        quantile = float(t.ppf(1 - alpha, error.df))
        p_lower = float(t.sf(error.t_value(neutral - margin), error.df))
        p_upper = float(t.cdf(error.t_value(neutral + margin), error.df))
        low, high = error.limit(quantile), error.limit(-quantile)
    else:
        p_lower = p_upper = (1 - margin / reach) ** error.n
        half = reach * unseen_share(error.n, 1 - alpha)
        low, high = neutral - half, neutral + half
    p = max(p_lower, p_upper)
    return Equivalence(
        p_lower=p_lower,
        p_upper=p_upper,
        p=p,
        equivalent=p <= alpha,
        low=low,
        high=high,
        margin=margin,
        alpha=alpha,
        neutral=neutral,
    )
