"""Reads a sweep folder: the plan, and what became of every job. Nothing else of the compare command reads a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from m3i.errors import InputError
from m3i.progress import Progress, read_progress
from m3i.result.build import FORMAT
from m3i.sweep.plan import read_plan

KEPT_OF_ANSWERS = ("correct", "n_tokens", "truncated")
HEAVY = ("telemetry", "traces", "observers", "agreement", "errors", "places", "contrasts", "examples")
"""Sections of a result that are the same in all arms, or that no comparison reads: kept of one job alone."""


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
    """`done`, `failed`, `unreadable` (there is a result that cannot be used) or `missing` (no result and no error)."""
    error: str = ""
    """Why there is no result to use."""
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
    """plan.json; None in a multirun that had none."""
    jobs: tuple[Job, ...]
    """In the order of the plan, or by seed and arm."""
    run: Mapping[str, Any]
    """The whole result.json of the attributed arm at its first training seed, or of the first job that is done."""

    def done(self) -> tuple[Job, ...]:
        """Jobs with a result."""
        return tuple(job for job in self.jobs if job.result is not None)


def load_sweep(folder: Path) -> LoadedSweep:
    """The jobs of a sweep folder with their results.

    Args:
        folder: With a plan.json, or any multirun folder with result.json files below it.

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
    run = json.loads((folder / first.folder / "result.json").read_text(encoding="utf-8"))
    return LoadedSweep(folder=folder, plan=plan, jobs=tuple(jobs), run=run)


def _nothing(folder: Path, jobs: Sequence[Job]) -> str:
    """Why there is nothing to compare."""
    wrong = [job for job in jobs if job.state in ("failed", "unreadable")]
    if wrong:
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return f"{folder}: no job has a result to compare. {wrong[0].folder}: {wrong[0].error}{others}"
    return f"{folder}: there is no result.json in it; run the sweep first: python -m m3i -m +sweep=control"


def _jobs_of_plan(folder: Path, plan: Mapping[str, Any]) -> list[Job]:
    """The jobs of the latest command, and those of earlier registrations that have run."""
    rows = {(row["arm"], row["seed"]): row["folder"] for row in plan["jobs"]}
    if not plan["registrations"]:
        raise InputError(f"{folder / 'plan.json'}: it holds no registration, so it is no plan of a sweep")
    for registration in plan["registrations"]:
        for arm, seed in product(registration["arms"], registration["seeds"]):
            ran = any((folder / arm / f"seed-{seed}" / name).exists() for name in ("result.json", "progress.jsonl"))
            if ran and (arm, seed) not in rows:
                rows[arm, seed] = f"{arm}/seed-{seed}"
    return [_job(folder, relative, arm=arm, seed=seed) for (arm, seed), relative in rows.items()]


def _jobs_of_folder(folder: Path) -> list[Job]:
    """Jobs of a multirun without a plan, by their own result.json; failed ones by their progress.jsonl."""
    places = {path.parent for name in ("result.json", "progress.jsonl") for path in folder.rglob(name)}
    jobs: dict[tuple[str, int], Job] = {}
    for place in sorted(places):
        relative = place.relative_to(folder).as_posix()
        arm, seed = _asked(place)
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


def _asked(place: Path) -> tuple[str, int]:
    """Arm and training seed of a job without a plan: of its result, else of the overrides that Hydra wrote down."""
    result = _read_json(place / "result.json") if (place / "result.json").exists() else {}
    arm = result.get("arm") if isinstance(result, dict) else None
    if isinstance(arm, dict):
        return str(arm["name"]), int(arm["seed"])
    overrides = place / ".hydra" / "overrides.yaml"
    words = overrides.read_text(encoding="utf-8").splitlines() if overrides.exists() else []
    asked = dict(word.lstrip("- ").partition("=")[::2] for word in words)
    seed = asked.get("seed", "0")
    return asked.get("arm", place.name), int(seed) if seed.lstrip("-").isdigit() else 0


def _job(folder: Path, relative: str, *, arm: str, seed: int) -> Job:
    path = folder / relative / "result.json"
    progress = read_progress(path.parent)
    # A result from before the latest attempt counts for nothing; a folder without progress was put there by hand.
    if not path.exists() or progress.state not in ("done", "waiting"):
        state, error = _ended(progress)
        return Job(arm=arm, seed=seed, folder=relative, state=state, error=error)
    result = _read_json(path)
    wrong = result if isinstance(result, str) else _unusable(result, arm=arm, seed=seed)
    if wrong or isinstance(result, str):
        return Job(arm=arm, seed=seed, folder=relative, state="unreadable", error=wrong)
    return Job(arm=arm, seed=seed, folder=relative, state="done", result=slim(result))


def _read_json(path: Path) -> dict[str, Any] | str:
    """The document, or in words why it cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{path}: cannot be read ({error})"
    return document if isinstance(document, dict) else f"{path}: holds no JSON object"


def _unusable(result: Mapping[str, Any], *, arm: str, seed: int) -> str:
    """Why a result cannot be compared; empty if it can."""
    if "arm" not in result:
        return (
            f"result.json was written before arms had names (format {result.get('format')!r}, M3I "
            f"{result.get('m3i', 'unknown')}): run this job again"
        )
    if result.get("format") != FORMAT:
        return f"result.json has format {result.get('format')!r}, this version reads {FORMAT}: run this job again"
    own = (result["arm"]["name"], result["arm"]["seed"])
    if own != (arm, seed):
        return f"result.json is of arm '{own[0]}' with training seed {own[1]}, not of the job of this folder"
    return ""


def _ended(progress: Progress) -> tuple[str, str]:
    """State and error of a job without a result of its latest attempt."""
    if progress.state == "failed":
        return "failed", progress.error or "it failed without a message"
    words = {
        "waiting": "it has not run",
        "interrupted": "it was interrupted",
        "done": "it ended, and its result.json is gone",
    }
    return "missing", words.get(progress.state, "it began and has not ended: it is running, or was killed")


def slim(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without texts and without what all arms share, so that a large sweep fits into memory."""
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
