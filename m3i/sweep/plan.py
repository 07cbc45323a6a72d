"""The plan of a sweep, written to plan.json before its first result.

The first registration is binding: the verdict uses its endpoint, margin and level. Later changes, once there are
results, are possible and are recorded too; the report calls them deviations.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import m3i
from m3i.config.arms import parse_arm
from m3i.config.settings import SweepSettings
from m3i.errors import ConfigError, InputError
from m3i.results.stored import wrong_settings
from m3i.store.files import read_object, write_texts

NAME = "plan.json"
FORMAT = 1
OWN = ("arm", "seed")
"""Options that a sweep sets for each job."""
ASIDE = ("sweep", "ledger", "store", "tracker")
"""Options that change no arm's results, so that a sweep continues in its folder when they change."""


def options_of_all(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that all jobs share: a config without those set per job or without effect on results."""
    shared = {"draw_seed": 0, **config}  # configs older than this option drew in the order of seed 0
    return {name: value for name, value in shared.items() if name not in (*OWN, *ASIDE)}


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """One arm at one training seed."""

    arm: str
    seed: int

    @property
    def folder(self) -> str:
        """The job's folder, relative to the sweep's."""
        return f"{self.arm}/seed-{self.seed}"


def planned_jobs(
    settings: SweepSettings, n_sets: int | None = None, n_excluding_sets: int | None = None
) -> list[PlannedJob]:
    """Returns the jobs of a sweep, the attributed arm at its first seed first.

    Args:
        settings: Arms and seeds asked for.
        n_sets: Number of sets that random arms can be drawn from, once known; no more arms than that are run.
        n_excluding_sets: The same for arms that exclude the attributed layers.
    """
    n_random = settings.n_random if n_sets is None else min(settings.n_random, n_sets)
    n_excluding = settings.n_excluding if n_excluding_sets is None else min(settings.n_excluding, n_excluding_sets)
    # The sham runs early: if the graft alone changes anything, every arm is spoiled.
    arms = ["attributed", *(["sham"] if "sham" in settings.others else [])]
    arms += [f"random-{i}" for i in range(n_random)]
    arms += [name for name in settings.others if name != "sham"]
    arms += [f"excluding-{i}" for i in range(n_excluding)]
    return [
        PlannedJob(arm=arm, seed=seed)
        for arm in arms
        for seed in (settings.seeds[:1] if arm == "sham" else settings.seeds)
    ]


def judged_jobs(settings: SweepSettings) -> int:
    """Returns the number of jobs that a judge has to read: all but the sham, whose answers equal the base model's."""
    return sum(job.arm != "sham" for job in planned_jobs(settings))


def register(
    folder: Path,
    settings: SweepSettings,
    *,
    judge: str,
    config: Mapping[str, Any],
    command: str,
    overrides: list[str],
) -> dict[str, Any]:
    """Returns the plan of the sweep in `folder`, with the current request registered in it.

    Args:
        folder: The sweep's folder.
        settings: The arms, seeds and test asked for.
        judge: Alias of the judge whose score counts.
        config: The experiment's options as plain values, without those that change no arm's results.
        command: What the user typed.
        overrides: Hydra's task overrides.

    Raises:
        InputError: plan.json cannot be read, or is the plan of another experiment.
    """
    plan = read_plan(folder) or {
        "format": FORMAT,
        "m3i": m3i.__version__,
        "command": command,
        "overrides": overrides,
        "config": dict(config),
        "registrations": [],
        "jobs": [],
        "n_sets": None,
    }
    other = differences(options_of_all(plan.setdefault("config", dict(config))), options_of_all(config))
    if other:
        raise InputError(
            f"{folder} holds the sweep of another experiment ({'; '.join(other[:3])}{'; ...' if other[3:] else ''}); "
            f"name another folder with hydra.sweep.dir= (both share the store)"
        )
    asked = {
        **{f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name != "others"},
        "judge": judge,
        "arms": list(dict.fromkeys(job.arm for job in planned_jobs(settings))),
        "seeds": list(settings.seeds),
        "generation_seeds": list(config["evaluate"]["seeds"]),
    }
    last = plan["registrations"][-1] if plan["registrations"] else {}
    if {k: v for k, v in last.items() if k not in ("at", "n_results")} != asked:
        n_results = len(list(folder.glob("*/seed-*/result.json")))
        plan["registrations"].append({"at": time.strftime("%Y-%m-%d %H:%M:%S%z"), "n_results": n_results, **asked})
    return plan


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Lists the options that differ, as `trainer.rank: 16 → 8`."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = list(dict.fromkeys((*one, *other)))
        inner = [differences(one.get(n), other.get(n), f"{path}.{n}" if path else str(n)) for n in names]
        return [words for found in inner for words in found]
    return [] if one == other else [f"{path}: {one} → {other}"]


def with_jobs(plan: Mapping[str, Any], jobs: list[PlannedJob], n_sets: int | None) -> dict[str, Any]:
    """Returns the plan with its jobs and the number of sets that can be drawn."""
    rows = [{"arm": job.arm, "seed": job.seed, "folder": job.folder} for job in jobs]
    return {**plan, "jobs": rows, "n_sets": n_sets}


def write_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Writes plan.json whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_texts({folder / NAME: json.dumps(plan, indent=1, ensure_ascii=False, allow_nan=False) + "\n"})


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Reads the plan in `folder`; None without one. Raises InputError where it cannot be read."""
    file = folder / NAME
    if not os.path.lexists(file):
        return None
    try:
        plan = read_object(file)
    except InputError as error:
        raise InputError(f"{error}; restore it or use another folder with hydra.sweep.dir=") from None
    if plan.get("format") != FORMAT:
        raise InputError(f"{file} is not a plan of this version of M3I; use another folder with hydra.sweep.dir=")
    wrong = damage(plan)
    if wrong:
        raise InputError(f"{file} is damaged ({wrong}); restore it or use another folder with hydra.sweep.dir=")
    return plan


def damage(plan: Mapping[str, Any]) -> str:
    """Returns what is wrong with a plan that was read; empty when nothing is."""
    try:
        for row in plan["registrations"]:
            if wrong := wrong_settings(row):
                return wrong
            if not isinstance(row["judge"], str) or not _are_integers(row["generation_seeds"]):
                return "a registration's judge or generation seeds"
            if not _are_integers(row["seeds"]):
                return "a registration's training seeds"
            if not {"primary", "n_random"} <= set(row):
                return "a registration's endpoint or number of random arms"
            if not isinstance(row["at"], str) or not _are_integers([row["n_results"]]) or row["n_results"] < 0:
                return "a registration's time or number of results"
            if not isinstance(row["arms"], list):
                return "a registration's arms"
            for arm in row["arms"]:
                parse_arm(arm)
        for job in plan["jobs"]:
            if PlannedJob(arm=parse_arm(job["arm"]).name, seed=int(job["seed"])).folder != job["folder"]:
                return f"the folder of job {job['arm']}, seed {job['seed']}"
        if not isinstance(plan["command"], str) or not all(isinstance(word, str) for word in plan["overrides"]):
            return "the command or its overrides"
        if not isinstance(plan["n_sets"], int | None) or not isinstance(plan.get("config", {}), Mapping):
            return "n_sets or config"
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _are_integers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)
