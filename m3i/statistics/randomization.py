"""The test behind a sweep's verdict: is the attributed set better than sets drawn from the same population?

Each layer set has one statistic T, already averaged over its training seeds: the draw is the unit. The test is exact
if, under an uninformative attribution, the attributed set is one more draw from the population of the controls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Alternative = Literal["greater", "less", "two-sided"]
ALTERNATIVES: tuple[Alternative, ...] = get_args(Alternative)
TIE = 1e-9
"""Statistics that differ by less are ties: means of the same scores in another order differ in the last bits."""


@dataclass(frozen=True, kw_only=True)
class RandomizationTest:
    """The rank of the attributed arm among its controls, with its p value."""

    p: float
    """(1 + controls at least as extreme) / (controls + 1)."""
    floor: float
    """The smallest p possible with this many controls, 1 / (controls + 1)."""
    n_controls: int
    n_extreme: int
    """Controls at least as extreme as the attributed arm; ties count, against the claim."""
    rank: int
    """Rank of the attributed arm among all arms, 1 for the highest; it ranks behind every control it ties with."""
    percentile: float
    """Share of controls below the attributed arm; a tie counts half."""
    alternative: Alternative


def randomization_test(
    *, attributed: float, controls: Sequence[float], alternative: Alternative = "greater"
) -> RandomizationTest:
    """Returns the randomization p of the attributed set's statistic among those of R distinct random sets.

    Args:
        attributed: T of the attributed set, averaged over training seeds (e.g. its mean score, 0 to 1).
        controls: T of each control, one per layer set. `distinct_controls` refuses what would make p invalid.
        alternative: "greater": the claim is that attributed layers do better. "two-sided" compares distances from the
            mean of the other arms, which have the same ranks as distances from the mean of all arms.

    Returns:
        The test. Its p is never below `floor`: no number of problems makes it smaller than 1 / (R + 1).

    Raises:
        ValueError: No control, a value that is not finite, or an unknown alternative.

    Source: Phipson & Smyth 2010 (1603.05766), equation 2, for the p that counts the observed arm; Dwass 1957, Annals of
    Mathematical Statistics 28, for its exactness with sampled sets; two-sided: Hemerik & Goeman 2018, TEST 27 (any
    statistic that treats the arms alike may be compared).
    """
    if alternative not in ALTERNATIVES:
        raise ValueError(f"alternative = {alternative!r}: expected 'greater', 'less' or 'two-sided'")
    if not len(controls):
        raise ValueError("no control: a randomization test needs at least one random set")
    all_R = np.array([attributed, *controls], dtype=float)
    if not np.isfinite(all_R).all():
        raise ValueError("a statistic is not a finite number: leave out arms that failed and say so")
    n = len(controls)
    tie = TIE * max(1.0, float(np.abs(all_R).max()))
    extreme_R = {"greater": all_R, "less": -all_R, "two-sided": np.abs(all_R - all_R.mean())}[alternative]
    n_extreme = int((extreme_R[1:] >= extreme_R[0] - tie).sum())
    at_least = int((all_R[1:] >= attributed - tie).sum())
    above = int((all_R[1:] > attributed + tie).sum())
    return RandomizationTest(
        p=(1 + n_extreme) / (n + 1),
        floor=p_floor(n),
        n_controls=n,
        n_extreme=n_extreme,
        rank=1 + at_least,
        percentile=(n - (at_least + above) / 2) / n,
        alternative=alternative,
    )


def p_floor(n_controls: int) -> float:
    """Returns the smallest p that a randomization test over this many controls can give, 1 / (n_controls + 1)."""
    if n_controls < 1:
        raise ValueError(f"n_controls = {n_controls}: expected 1 or more")
    return 1 / (n_controls + 1)


def controls_for(alpha: float) -> int:
    """Returns the smallest number of controls with which p ≤ alpha is possible, ceil(1 / alpha) − 1: 19 for 0.05."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: expected a number between 0 and 1")
    return math.ceil(1 / alpha - 1e-9) - 1


def distinct_controls(
    *, attributed: Sequence[int], controls: Sequence[Sequence[int]], population: Sequence[int] | None = None
) -> tuple[tuple[int, ...], ...]:
    """Returns the controls as sorted tuples, after checking that a randomization p over them is valid.

    Args:
        attributed: Layers of the attributed set.
        controls: Layers of each control.
        population: The candidate layers that every set must come from; None to skip the checks against it.

    Raises:
        ValueError: Sets repeat, equal the attributed set, differ from it in size, hold a layer twice or leave the
            population (the message names them); or all controls avoid the attributed layers, which has a probability
            below one in a thousand for draws from the whole population.

    Source: the p value of `randomization_test` is valid for exchangeable arms (Dwass 1957).
    """
    target = tuple(sorted(attributed))
    sets = tuple(tuple(sorted(control)) for control in controls)
    for name, bad in (
        ("hold a layer twice", [s for s in (target, *sets) if len(set(s)) < len(s)]),
        ("equal the attributed set", [s for s in sets if s == target]),
        ("are drawn more than once", sorted({s for s in sets if sets.count(s) > 1})),
        (f"differ in size from the attributed {target}", [s for s in sets if len(s) != len(target)]),
        (
            "hold layers outside the candidates",
            [s for s in (target, *sets) if population is not None and not set(s) <= set(population)],
        ),
    ):
        if bad:
            raise ValueError(f"controls {name}: {', '.join(map(str, bad))}; draw R distinct sets from the population")
    if population is not None and sets and all(set(s).isdisjoint(target) for s in sets):
        n, k = len(set(population)), len(target)
        chance = math.prod(_share_disjoint(n, k, drawn) for drawn in range(len(sets)))
        if chance < 1e-3:
            raise ValueError(
                f"all {len(sets)} controls avoid the attributed layers {target}, which draws from all "
                f"{math.comb(n, k)} sets would do with probability {chance:.2g}; draws that exclude attributed "
                f"layers give no valid p"
            )
    return sets


def _share_disjoint(n: int, k: int, drawn: int) -> float:
    """Returns the share of sets without attributed layers among those left after `drawn` such sets."""
    return max(0, math.comb(n - k, k) - drawn) / max(1, math.comb(n, k) - 1 - drawn)
