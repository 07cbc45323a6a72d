"""Scores of every job as arrays, on the problems that all arms share.

Shape suffixes: R controls, S training seeds, P problems, G generation seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3i.sweep.design import Design
from m3i.sweep.load import Job, LoadedSweep

POINTS = {"tuned": 1.0, "base": 0.0, "tie": 0.5, "split": 0.5}
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One quantity by which arms are compared, with its value for every job, problem and generation seed."""

    name: str
    """`score:<judge>` or `accuracy`."""
    judge: str
    """Empty for accuracy."""
    neutral: float
    """What no change from the base model gives: ½, or 0 for `shift`."""
    reach: float
    """Largest distance from `neutral`."""
    problems: tuple[str, ...]
    left_out: tuple[str, ...]
    """Held-out problems with a missing verdict in some job, left out of all of them."""
    values: Mapping[tuple[str, int], Array]
    """(arm, training seed) → P x G: the score, or 1 for a right answer."""
    base_PG: Array
    """What the base model has: ½ everywhere, or 1 for a right answer."""

    def arm_SPG(self, arm: str, seeds: Sequence[int]) -> Array:
        """An arm's values by training seed."""
        return np.stack([self.values[arm, seed] for seed in seeds])

    def t(self, arm: str, seeds: Sequence[int]) -> float:
        """The statistic of an arm: the mean over training seeds, problems and generation seeds."""
        return float(self.arm_SPG(arm, seeds).mean())

    def shift_SPG(self, arm: str, seeds: Sequence[int]) -> Array:
        """Values as they lie around `neutral`: scores as they are, accuracy minus the base model's."""
        return self.arm_SPG(arm, seeds) - (self.base_PG if not self.judge else 0.0)


def comparable(sweep: LoadedSweep) -> tuple[list[Job], list[Job]]:
    """Jobs that answered the same questions as the run shown, and those that did not."""
    asked = {(row["problem_id"], row["seed"]) for row in sweep.run["problems"]["rows"]}
    same: list[Job] = []
    other: list[Job] = []
    for job in sweep.done():
        assert job.result is not None
        own = {(row["problem_id"], row["seed"]) for row in job.result["problems"]["rows"]}
        panel = set(sweep.run["judges"]) <= set(job.result["judges"])
        (same if own == asked and panel else other).append(job)
    return same, other


def endpoint_names(sweep: LoadedSweep, design: Design) -> list[str]:
    """The primary endpoint first, then every other judge's score and the accuracy."""
    names = [f"score:{judge}" for judge in sweep.run["judges"]] + ["accuracy"]
    primary = "accuracy" if design.primary == "accuracy" else f"score:{design.judge}"
    return [primary, *(name for name in names if name != primary)]


def endpoint(name: str, sweep: LoadedSweep, jobs: Sequence[Job]) -> Endpoint:
    """The values of one endpoint for every job.

    Args:
        name: Of `endpoint_names`.
        sweep: Gives the order of the problems.
        jobs: Comparable ones.
    """
    judge = name.partition(":")[2]
    rows = sweep.run["problems"]["rows"]
    problems = list(dict.fromkeys(row["problem_id"] for row in rows))
    seeds = sorted({row["seed"] for row in rows})
    place_p, place_g = {p: i for i, p in enumerate(problems)}, {g: i for i, g in enumerate(seeds)}
    values: dict[tuple[str, int], Array] = {}
    base_PG = np.full((len(problems), len(seeds)), 0.5)
    for job in jobs:
        assert job.result is not None
        own_PG = np.full((len(problems), len(seeds)), np.nan)
        for row in job.result["problems"]["rows"]:
            at = place_p[row["problem_id"]], place_g[row["seed"]]
            if judge:
                own_PG[at] = POINTS.get(row["verdicts"].get(judge, {"outcome": "missing"})["outcome"], np.nan)
            else:
                own_PG[at], base_PG[at] = row["tuned"]["correct"], row["base"]["correct"]
        values[job.arm, job.seed] = own_PG
    whole_P = np.ones(len(problems), dtype=bool)
    for own_PG in values.values():
        whole_P &= np.isfinite(own_PG).all(axis=1)
    return Endpoint(
        name=name,
        judge=judge,
        neutral=0.5 if judge else 0.0,
        reach=0.5 if judge else 1.0,
        problems=tuple(p for p, whole in zip(problems, whole_P, strict=True) if whole),
        left_out=tuple(p for p, whole in zip(problems, whole_P, strict=True) if not whole),
        values={job: own_PG[whole_P] for job, own_PG in values.items()},
        base_PG=base_PG[whole_P],
    )


def same_order(one: Endpoint, other: Endpoint) -> bool:
    """Whether one endpoint is the other on another scale: then a second test of it would be the same test.

    A judge that follows the verifier gives (1 + tuned − base) / 2 of its right answers.
    """
    if one.problems != other.problems or one.values.keys() != other.values.keys():
        return False

    def scaled(end: Endpoint, job: tuple[str, int]) -> Array:
        return end.values[job] - 0.5 if end.judge else (end.values[job] - end.base_PG) / 2

    return all(np.allclose(scaled(one, job), scaled(other, job)) for job in one.values)
