"""Comparisons shown beside the test of an endpoint: with the base model, and with the shuffled arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from m3i.statistics import TIE, control_effect, mean_score, problem_signs, sign_test
from m3i.sweep.design import Design
from m3i.sweep.endpoints import Endpoint


def training_effect(end: Endpoint, design: Design) -> dict[str, Any] | None:
    """Compares the mean over the attributed arm and its controls with the base model, with an interval over problems.

    All arms are compared with the same base answers, so their means rise and fall together, and all of them lying below
    the base model is no more evidence than one of them doing so. Here each problem gives one value, its mean over arms,
    training seeds and generation seeds.

    Returns:
        `n_arms`, `n_below` (arms whose own mean lies below the base model's) and `difference` (estimate); None without
        a problem or an arm.
    """
    if not end.problems or not design.seeds:
        return None
    arms = ("attributed", *design.controls)
    shift_AP = np.stack([end.shift_SPG(arm, design.seeds).mean(axis=(0, 2)) for arm in arms]) - end.neutral
    found = mean_score(
        problems=end.problems,
        scores=shift_AP.mean(axis=0).tolist(),
        level=design.level,
        neutral=0.0,
        reach=end.reach,
    )
    n_below = int((shift_AP.mean(axis=1) < -TIE).sum())
    return {"n_arms": len(arms), "n_below": n_below, "difference": asdict(found)}


def against_base(end: Endpoint, design: Design) -> dict[str, Any] | None:
    """Counts problems that the attributed arm wins and loses against the base model, by majority of their comparisons.

    On the problems and training seeds of the test, with the exact sign test (for accuracy it equals McNemar's).
    """
    if not end.problems or not design.seeds:
        return None
    sign_SPG = np.sign(end.shift_SPG("attributed", design.seeds) - end.neutral)
    sums = np.rint(sign_SPG.sum(axis=(0, 2))).astype(int).tolist()
    wins, losses, undecided = problem_signs(zip(end.problems, sums, strict=True))
    p = sign_test(wins=wins, losses=losses, level=design.level).p
    return {"wins": wins, "losses": losses, "undecided": undecided, "p": p}


def shuffled_effect(end: Endpoint, design: Design, arms: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns the attributed arm minus the shuffled one, problem by problem, at the seeds that both have.

    None where there is no shuffled arm, no common seed, or fewer than two common problems.
    """
    row = next((row for row in arms if row["kind"] == "shuffled"), None)
    seeds = [seed for seed in design.seeds if row is not None and seed in row["seeds"]]
    if row is None or not seeds:
        return None
    found = paired_effect(end, [row["arm"]], seeds, design.level)
    return None if found is None else {"seeds": seeds, "difference": found}


def paired_effect(end: Endpoint, others: Sequence[str], seeds: Sequence[int], level: float) -> dict[str, Any] | None:
    """Returns the attributed arm minus the mean of others on their common problems; None with fewer than two."""
    whole_P = end.whole_P(*((arm, seed) for arm in ("attributed", *others) for seed in seeds))
    if whole_P.sum() < 2:
        return None
    found = control_effect(
        attributed_SP=end.arm_SPG("attributed", seeds).mean(axis=2)[:, whole_P],
        controls_RSP=np.stack([end.arm_SPG(arm, seeds).mean(axis=2)[:, whole_P] for arm in others]),
        level=level,
    )
    return asdict(found.difference)
