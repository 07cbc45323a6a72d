"""Reads a sweep folder: the plan, and what became of every job. No other part of the compare command reads a file."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from m3i.config.arms import parse_arm
from m3i.errors import ConfigError, InputError
from m3i.progress.journal import Progress, read_progress
from m3i.results.stored import OF_THE_PAGE, read_result
from m3i.store.files import read_object
from m3i.sweep.plan import read_plan

KEPT_OF_ANSWERS = ("correct", "n_tokens", "truncated")
HEAVY = ("telemetry", "traces", "observers", "agreement", "errors", "places", "contrasts", "examples")
"""Sections of a result that are the same in all arms, or that no comparison reads; kept for one job only."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One arm with one training seed."""

    arm: str
    """Name as in the config, e.g. `random-3`."""
    seed: int
    """Training seed."""
    folder: str
    """Relative to the sweep."""
    state: str
    """`done`, `failed`, `unreadable` (it has a result that cannot be used) or `missing` (no result and no error)."""
    error: str = ""
    """Why there is no usable result."""
    result: Mapping[str, Any] | None = None
    """Its result.json without the texts and the sections in `HEAVY`; None unless `done`."""

    @property
    def kind(self) -> str:
        """attributed, random, excluding, all, shuffled or sham."""
        return self.arm.partition("-")[0]


@dataclass(frozen=True, kw_only=True)
class LoadedSweep:
    """A sweep folder's content."""

    folder: Path
    plan: Mapping[str, Any] | None
    """plan.json; None for a multirun without one."""
    jobs: tuple[Job, ...]
    """In the order of the plan, or by seed and arm."""
    run: Mapping[str, Any]
    """The whole result.json of the attributed arm at its first training seed, or of the first job that is done."""

    def done(self) -> tuple[Job, ...]:
        """Jobs with a result."""
        return tuple(job for job in self.jobs if job.result is not None)


def load_sweep(folder: Path) -> LoadedSweep:
    """Loads the jobs of a sweep folder with their results.

    Args:
        folder: A folder with a plan.json, or any multirun folder with result.json files below it.

    Raises:
        InputError: No such folder, a plan that cannot be read, two results of one job, or no result to compare.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give the folder of a sweep, e.g. m3i compare sweeps/NAME")
    plan = read_plan(folder)
    jobs = _jobs_of_plan(folder, plan) if plan else _jobs_of_folder(folder)
    done = [job for job in jobs if job.result is not None]
    if not done:
        raise InputError(_nothing(folder, jobs))
    first = min(done, key=lambda job: (job.kind != "attributed", job.seed))
    run = read_result(folder / first.folder / "result.json")
    return LoadedSweep(folder=folder, plan=plan, jobs=tuple(jobs), run=run)


def _nothing(folder: Path, jobs: Sequence[Job]) -> str:
    """Returns why there is nothing to compare."""
    wrong = [job for job in jobs if job.state in ("failed", "unreadable")]
    if wrong:
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return f"{folder}: no job has a result to compare. {wrong[0].folder}: {wrong[0].error}{others}"
    return f"{folder}: it contains no result.json; run the sweep first: python -m m3i -m +sweep=control"


def _jobs_of_plan(folder: Path, plan: Mapping[str, Any]) -> list[Job]:
    """Returns the jobs of the latest command, and those of earlier registrations that have run."""
    rows = {(row["arm"], row["seed"]): row["folder"] for row in plan["jobs"]}
    if not plan["registrations"]:
        raise InputError(f"{folder / 'plan.json'}: it contains no registration, so it is not the plan of a sweep")
    for registration in plan["registrations"]:
        for arm, seed in product(registration["arms"], registration["seeds"]):
            ran = any((folder / arm / f"seed-{seed}" / name).exists() for name in ("result.json", "progress.jsonl"))
            if ran and (arm, seed) not in rows:
                rows[arm, seed] = f"{arm}/seed-{seed}"
    return [_job(folder, relative, arm=arm, seed=seed) for (arm, seed), relative in rows.items()]


def _jobs_of_folder(folder: Path) -> list[Job]:
    """Finds the jobs of a multirun without a plan by their result.json; failed ones by their progress.jsonl."""
    places = {path.parent for name in ("result.json", "progress.jsonl") for path in folder.rglob(name)}
    jobs: dict[tuple[str, int], Job] = {}
    for place in sorted(places):
        relative = place.relative_to(folder).as_posix()
        arm, seed = _asked(place, relative)
        job = _job(folder, relative, arm=arm, seed=seed)
        other = jobs.get((job.arm, job.seed))
        if other and other.result and job.result:
            raise InputError(
                f"{folder}: {other.folder} and {relative} both hold arm '{job.arm}' with training seed {job.seed}; "
                f"compare one sweep at a time"
            )
        if other is None or other.result is None:
            jobs[job.arm, job.seed] = job
    return sorted(jobs.values(), key=lambda job: (job.seed, job.kind != "attributed"))


def _asked(place: Path, relative: str) -> tuple[str, int]:
    """Returns arm and training seed of a job without a plan, from its result or else from Hydra's overrides file."""
    with contextlib.suppress(InputError):
        arm = read_object(place / "result.json").get("arm")
        if isinstance(arm, dict) and _is_arm(arm.get("name")) and isinstance(arm.get("seed"), int):
            return arm["name"], arm["seed"]
    words: list[str] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        words = (place / ".hydra" / "overrides.yaml").read_text(encoding="utf-8").splitlines()
    asked = dict(word.lstrip("- ").partition("=")[::2] for word in words)
    arm, seed = asked.get("arm", place.name), asked.get("seed", "0")
    number = re.fullmatch(r"-?[0-9]{1,18}", seed)
    return arm if _is_arm(arm) else f"unknown ({relative})", int(seed) if number else 0


def _is_arm(name: object) -> bool:
    try:
        parse_arm(str(name))
    except ConfigError:
        return False
    return isinstance(name, str)


def _job(folder: Path, relative: str, *, arm: str, seed: int) -> Job:
    path = folder / relative / "result.json"
    progress = read_progress(path.parent)
    # A result older than the latest attempt does not count; a folder without progress was put there by hand.
    if not path.exists() or progress.state not in ("done", "waiting"):
        state, error = _ended(progress)
        return Job(arm=arm, seed=seed, folder=relative, state=state, error=error)
    try:
        result = read_result(path, OF_THE_PAGE)  # the run that is shown is read whole
        own = (result["arm"]["name"], result["arm"]["seed"])
        if own != (arm, seed):
            raise InputError(
                f"{path}: it belongs to arm '{own[0]}' with training seed {own[1]}, not to the job of this folder"
            )
    except InputError as error:
        return Job(arm=arm, seed=seed, folder=relative, state="unreadable", error=_without(path, str(error)))
    return Job(arm=arm, seed=seed, folder=relative, state="done", result=slim(result))


def _without(path: Path, words: str) -> str:
    """Removes the folder from a message about a file, since the page of a sweep may be published."""
    return words.removeprefix(f"{path.parent}{os.sep}")


def _ended(progress: Progress) -> tuple[str, str]:
    """Returns state and error of a job whose latest attempt has no result."""
    if progress.state == "failed":
        return "failed", progress.error or "it failed without a message"
    words = {
        "waiting": "it has not run",
        "interrupted": "it was interrupted",
        "done": "it ended, but its result.json is missing",
    }
    return "missing", words.get(progress.state, "it started but has not ended: it is running or was killed")


def slim(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a result without texts and without what all arms share, so that a large sweep fits into memory."""
    kept = {name: section for name, section in result.items() if name not in HEAVY}
    rows = [
        {
            "problem_id": row["problem_id"],
            "seed": row["seed"],
            "equal": row["equal"],
            "base": {name: row["base"][name] for name in KEPT_OF_ANSWERS},
            "tuned": {name: row["tuned"][name] for name in KEPT_OF_ANSWERS},
            "verdicts": {
                judge: {name: verdict[name] for name in ("outcome", "first", "second")}
                for judge, verdict in row["verdicts"].items()
            },
        }
        for row in result["problems"]["rows"]
    ]
    return kept | {"problems": dict(result["problems"]) | {"rows": rows}}
