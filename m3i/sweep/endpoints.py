"""Scores of every job as arrays, on the problems that the arms of the test share.

Shape suffixes: R controls, S training seeds, P problems, G generation seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3i.artifacts import SCORES
from m3i.sweep.design import Design
from m3i.sweep.load import Job, LoadedSweep

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One quantity by which arms are compared, with its value for every job, problem and generation seed."""

    name: str
    """`score:<judge>` or `accuracy`."""
    judge: str
    """Empty for accuracy."""
    neutral: float
    """The value of no change from the base model: ½ for a score, 0 for a shift of accuracy."""
    reach: float
    """Largest distance from `neutral`."""
    problems: tuple[str, ...]
    left_out: tuple[str, ...]
    """Held-out problems with a missing verdict in some job of the test, left out of all jobs."""
    values: Mapping[tuple[str, int], Array]
    """(arm, training seed) → P x G: the score, or 1 for a correct answer; NaN only in jobs outside the test."""
    base_PG: Array
    """The base model's values: ½ everywhere, or 1 for a correct answer."""

    def arm_SPG(self, arm: str, seeds: Sequence[int]) -> Array:
        """Returns an arm's values by training seed."""
        return np.stack([self.values[arm, seed] for seed in seeds])

    def t(self, arm: str, seeds: Sequence[int]) -> float:
        """Returns the statistic of a tested arm: its mean over training seeds, problems and generation seeds."""
        return float(self.arm_SPG(arm, seeds).mean())

    def whole_P(self, *jobs: tuple[str, int]) -> npt.NDArray[np.bool_]:
        """Returns which of `problems` have every value in all of these jobs."""
        whole_P = np.ones(len(self.problems), dtype=bool)
        for job in jobs:
            whole_P &= np.isfinite(self.values[job]).all(axis=1)
        return whole_P

    def own_t(self, arm: str, seeds: Sequence[int]) -> tuple[float | None, int]:
        """Returns T of any arm on the `problems` for which it has a value at each seed, and their number."""
        whole_P = self.whole_P(*((arm, seed) for seed in seeds))
        n = int(whole_P.sum())
        return (float(self.arm_SPG(arm, seeds)[:, whole_P].mean()) if n and seeds else None), n

    def shift_SPG(self, arm: str, seeds: Sequence[int]) -> Array:
        """Returns values centred on `neutral`: scores as they are, accuracy minus the base model's."""
        return self.arm_SPG(arm, seeds) - (self.base_PG if not self.judge else 0.0)


def comparable(sweep: LoadedSweep) -> tuple[list[Job], list[Job]]:
    """Splits the jobs into those with the questions and judges of the run shown, and all others."""
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
    """Returns the primary endpoint first, then every other judge's score and the accuracy."""
    names = [f"score:{judge}" for judge in sweep.run["judges"]] + ["accuracy"]
    primary = "accuracy" if design.primary == "accuracy" else f"score:{design.judge}"
    return [primary, *(name for name in names if name != primary)]


def endpoint(name: str, sweep: LoadedSweep, jobs: Sequence[Job], design: Design) -> Endpoint:
    """Returns the values of one endpoint for every job.

    Args:
        name: One of `endpoint_names`.
        sweep: Gives the order of the problems.
        jobs: The comparable jobs.
        design: Its attributed arm and controls, at its seeds, decide which problems count; other arms do not.
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
                own_PG[at] = SCORES.get(row["verdicts"].get(judge, {"outcome": "missing"})["outcome"], np.nan)
            else:
                own_PG[at], base_PG[at] = row["tuned"]["correct"], row["base"]["correct"]
        values[job.arm, job.seed] = own_PG
    whole_P = np.ones(len(problems), dtype=bool)
    for (arm, seed), own_PG in values.items():
        if arm in ("attributed", *design.controls) and seed in design.seeds:
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
    """Whether one endpoint is the other on another scale, so that a second test would be the same test.

    A judge that follows the verifier scores (1 + tuned − base) / 2, where a correct answer is 1.
    """
    if one.problems != other.problems or one.values.keys() != other.values.keys():
        return False

    def scaled(end: Endpoint, job: tuple[str, int]) -> Array:
        return end.values[job] - 0.5 if end.judge else (end.values[job] - end.base_PG) / 2

    def equal(job: tuple[str, int]) -> bool:
        a_PG, b_PG = scaled(one, job), scaled(other, job)
        both_PG = np.isfinite(a_PG) & np.isfinite(b_PG)  # a job outside the test can lack a verdict
        return np.allclose(a_PG[both_PG], b_PG[both_PG])

    return all(equal(job) for job in one.values)
