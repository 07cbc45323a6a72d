"""What this sweep could have detected, and what the effect that the user looks for would require."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from m3i.statistics import (
    TIE,
    detectable_mean,
    detectable_shift,
    power_randomization,
    required_controls,
    required_n,
    required_problems,
    score_error,
    tied_effect,
)
from m3i.sweep.design import Design
from m3i.sweep.endpoints import Endpoint
from m3i.sweep.variance import split

LIMIT = 100_000
"""Largest number of problems or seeds that the search considers."""


def power_section(end: Endpoint, design: Design, tie_rate: float | None) -> dict[str, Any]:
    """Returns the power of one endpoint.

    Args:
        end: Its values.
        design: Arms and seeds of the test.
        tie_rate: Share of the attributed arm's comparisons that decide nothing.

    Returns:
        `base`: the attributed arm against the base model; `controls`: against the random arms; `effect`: the user's
        effect as a shift of T. Each has `why` where a number cannot be given.
    """
    section: dict[str, Any] = {"power": design.power, "alpha": design.alpha, "tie_rate": tie_rate}
    section["effect"] = _effect(end, design, tie_rate)
    section["base"] = _against_base(end, design, section["effect"])
    section["controls"] = _against_controls(end, design, section["effect"])
    return section


def _effect(end: Endpoint, design: Design, tie_rate: float | None) -> dict[str, Any]:
    """Converts the share of wins that the user looks for into a shift of T and a standard deviation per problem.

    The shift is measured from an even share. Against the controls it is the difference looked for from *their* mean; an
    arm that wins that share against the base model lies farther from controls that lose to it.
    """
    effect: dict[str, Any] = {"share": design.effect, "tie_rate": tie_rate, "shift": None, "sd": None, "why": ""}
    if tie_rate is None:
        return effect | {"why": "The attributed arm has no comparison."}
    if tie_rate == 1:
        return effect | {"why": "Every comparison is tied, so a share of wins among decided problems shifts nothing."}
    shift, sd = tied_effect(share=design.effect, tie_rate=tie_rate)
    scale = 1.0 if end.judge else 2.0  # one more correct answer moves the accuracy by 1, the score by ½
    return effect | {"shift": scale * shift, "sd": scale * sd}


def too_wide(margin: float, effect: Mapping[str, Any]) -> bool:
    """Whether an equivalence margin is at least as wide as the shift of the effect sought.

    Equivalence within such a margin does not show that the effect is absent. If everything is tied, the shift is 0.
    """
    if effect["tie_rate"] is None:
        return False
    shift = 0.0 if effect["shift"] is None else abs(effect["shift"])
    return bool(margin >= shift - TIE)


def _against_base(end: Endpoint, design: Design, effect: dict[str, Any]) -> dict[str, Any]:
    """Returns the smallest detectable shift, and the problems needed for the user's effect with one answer each."""
    found: dict[str, Any] = {"detectable": None, "sd": None, "required_problems": None, "required_problems_sign": None}
    found |= {"n": len(end.problems), "why": ""}
    if len(end.problems) < 2 or not design.seeds:
        return found | {"why": "Fewer than two problems are left."}
    shift_PG = end.shift_SPG("attributed", design.seeds).mean(axis=0)
    error = score_error(
        problems=np.repeat(np.arange(shift_PG.shape[0]), shift_PG.shape[1]).tolist(),
        scores=shift_PG.reshape(-1).tolist(),
        neutral=end.neutral,
        reach=end.reach,
    )
    found["sd"] = error.sd
    found["detectable"] = detectable_mean(sd=error.sd, n=error.n, power=design.power, alpha=design.alpha)
    if effect["shift"]:
        found["required_problems"] = required_problems(
            effect=effect["shift"], sd=effect["sd"], power=design.power, alpha=design.alpha
        )
        found["required_problems_sign"] = required_n(
            share=effect["share"], tie_rate=effect["tie_rate"], power=design.power, alpha=design.alpha
        )
    else:
        found["why"] = effect["why"]
    return found


def _against_controls(end: Endpoint, design: Design, effect: dict[str, Any]) -> dict[str, Any]:
    """Returns the smallest shift the test detects, and the controls, problems or seeds the user's effect needs."""
    found: dict[str, Any] = {
        "between": None,
        "within": None,
        "detectable": None,
        "power_at_effect": None,
        "required_controls": None,
        "required_problems": None,
        "required_seeds": None,
        "n_controls": len(design.controls),
        "why": "",
    }
    spread = split(end, design)
    if spread is None:
        return found | {"why": "There is no random arm with all training seeds."}
    between = spread.value("draw")
    n_controls, n_seeds, n_problems = len(design.controls), len(design.seeds), len(end.problems)

    def within(*, problems: int = n_problems, seeds: int = n_seeds) -> float:
        answers = len(design.generation_seeds)
        return spread.within_draw(problems=problems, generation_seeds=answers, training_seeds=seeds)

    found |= {"between": between, "within": within()}
    if between + within() <= 0:
        return found | {"why": "The scores of the random arms do not vary over layers, training or problems."}
    if len(design.controls) < 2:
        found["why"] = "With one random arm, the spread between layer sets is unknown and taken as 0."
    found["detectable"] = detectable_shift(
        between=between, within=within(), controls=n_controls, power=design.power, alpha=design.alpha
    )
    if not effect["shift"]:
        return found | {"why": found["why"] or effect["why"]}

    def power(variance: float) -> float:
        """Returns the power at the user's effect; with no variance left, every control lies below it."""
        if between + variance <= 0:
            return 1.0
        return power_randomization(
            effect=effect["shift"], between=between, within=variance, controls=n_controls, alpha=design.alpha
        )

    found["power_at_effect"] = power(within())
    found["required_controls"] = required_controls(
        effect=effect["shift"], between=between, within=within(), power=design.power, alpha=design.alpha
    )
    found["required_problems"] = least(lambda n: power(within(problems=n)) >= design.power)
    found["required_seeds"] = least(lambda n: power(within(seeds=n)) >= design.power)
    return found


def least(enough: Callable[[int], bool], limit: int = LIMIT) -> int | None:
    """Returns the smallest whole number from 1 that is enough, if more never hurts; None above `limit`."""
    low, high = 0, 1
    while not enough(high):
        low, high = high, high * 2
        if low >= limit:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
