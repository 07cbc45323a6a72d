"""The exact sign test over problems, and the interval of the tuned model's share of decided ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SignTest:
    """Wins against losses; ties carry no sign and are left out."""

    wins: int
    losses: int
    p: float
    """Two-sided exact p of a split at least this uneven when both are equally likely; 1 without a decided unit."""
    share: float | None
    """Share of wins among decided units; None without one."""
    low: float
    high: float
    """Clopper-Pearson interval of the share; 0 to 1 without a decided unit."""
    level: float


def sign_test(*, wins: int, losses: int, level: float = 0.95) -> SignTest:
    """Returns the exact two-sided sign test with the Clopper-Pearson interval of the winning share.

    Args:
        wins: Units decided for the tuned model, ≥ 0.
        losses: Units decided for the base model, ≥ 0.
        level: Confidence level of the interval, in (0, 1).

    Raises:
        ValueError: A count is negative, or the level is outside (0, 1).

    Source: Dixon & Mood 1946, The statistical sign test; Clopper & Pearson 1934 (exact interval, at least `level`
    coverage). Ties are left out, as Dixon & Mood do.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"wins = {wins}, losses = {losses}: counts cannot be negative")
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: expected a number between 0 and 1")
    n = wins + losses
    if n == 0:
        return SignTest(wins=0, losses=0, p=1.0, share=None, low=0.0, high=1.0, level=level)
    from scipy.stats import binomtest

    test = binomtest(wins, n, 0.5)
    interval = test.proportion_ci(confidence_level=level, method="exact")
    return SignTest(
        wins=wins,
        losses=losses,
        p=float(test.pvalue),
        share=wins / n,
        low=float(interval.low),
        high=float(interval.high),
        level=level,
    )


def unseen_share(n: int, level: float = 0.95) -> float:
    """Returns the largest share at which 0 of n still has probability 1 − level or more; 1 for n = 0.

    Source: Hanley & Lippman-Hand 1983, JAMA 249, "If nothing goes wrong, is everything all right?" (about 3 / n).
    """
    return 1.0 - (1.0 - level) ** (1.0 / n) if n else 1.0


def problem_signs(scores: Iterable[tuple[str, int]]) -> tuple[int, int, int]:
    """Counts problems won, lost and undecided, from one score per comparison.

    Args:
        scores: (problem id, +1 the tuned model won, −1 the base model won, 0 neither) for each generation seed.

    Returns:
        (wins, losses, undecided): a problem counts for the side that won more of its comparisons.

    Several seeds of one problem are dependent; their majority is one independent sign (Donner & Klar 2000, Design and
    Analysis of Cluster Randomization Trials, chapter 1: the unit of analysis is the cluster).
    """
    totals: dict[str, int] = defaultdict(int)
    for problem_id, score in scores:
        totals[problem_id] += score
    wins = sum(total > 0 for total in totals.values())
    losses = sum(total < 0 for total in totals.values())
    return wins, losses, len(totals) - wins - losses
