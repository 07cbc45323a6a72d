"""What the sweep was to test, and which arms can enter the test. Pure functions of the loaded folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m3i.config.settings import SweepSettings
from m3i.errors import InputError, did_you_mean
from m3i.sweep.load import Job, LoadedSweep
from m3i.sweep.preregistration import trained_before

TESTED = ("attributed", "random")
"""Kinds of arms that the randomization test compares."""
BINDING = ("primary", "judge", "alternative", "alpha", "margin", "effect")
"""Options of the test that each result's config holds too."""
WORDS = {
    "primary": "the primary endpoint",
    "judge": "the judge",
    "alternative": "the alternative",
    "alpha": "alpha",
    "margin": "the equivalence margin",
    "effect": "the effect sought",
    "n_random": "the number of random arms",
    "n_excluding": "the number of excluding arms",
    "arms": "the arms",
    "seeds": "the training seeds",
    "generation_seeds": "the generation seeds",
}


@dataclass(frozen=True, kw_only=True)
class Design:
    """The arms, seeds and rules of the test."""

    primary: str
    """`score` or `accuracy`."""
    judge: str
    """Alias of the judge of the primary score."""
    alternative: str
    alpha: float
    margin: float
    effect: float
    level: float
    """Confidence level of the intervals."""
    power: float
    """Power at which detectable effects are stated."""
    attributed: tuple[int, ...]
    """The attributed layers."""
    candidates: tuple[int, ...]
    n_sets: int | None
    """Number of other sets that could have been drawn."""
    planned_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    """Training seeds that enter the test: the planned ones at which the attributed arm has a result."""
    generation_seeds: tuple[int, ...]
    planned_controls: tuple[str, ...]
    """Random arms that were planned (and registered)."""
    controls: tuple[str, ...]
    """Random arms with a result at each of `seeds`, derived from the attributed set of the test."""
    unregistered: tuple[str, ...]
    """Random arms with results that the first registration does not name: shown, not tested."""
    incomplete: tuple[dict[str, Any], ...]
    """Arms of the test that lack a training seed: `arm`, `missing` seeds, `entered` (whether it is tested anyway)."""
    other_attributed: tuple[str, ...] = ()
    """Planned random arms that were derived from another attributed set: not tested."""


def registered(sweep: LoadedSweep) -> dict[str, Any] | None:
    """Returns the binding registration of the plan, which is the first; None without a plan."""
    return dict(sweep.plan["registrations"][0]) if sweep.plan else None


def design_of(sweep: LoadedSweep, jobs: Sequence[Job]) -> Design:
    """Returns the registered test or, without a plan, the one in the results' own config.

    Args:
        sweep: The folder.
        jobs: The jobs that can be compared with each other.
    """
    own = sweep.run["config"].get("sweep", {}) if isinstance(sweep.run["config"], Mapping) else {}
    plan = registered(sweep) or {}
    defaults = SweepSettings()

    def asked(name: str) -> Any:
        return plan.get(name, own.get(name, getattr(defaults, name)))

    if not 0 < asked("alpha") < 0.5:
        raise InputError(
            f"{sweep.folder}: the registered sweep.alpha = {asked('alpha')} cannot be used; tests of a difference and "
            f"of equivalence need an alpha between 0 and 0.5"
        )
    judge, panel = asked("judge") or next(iter(sweep.run["judges"])), sweep.run["judges"]
    if judge not in panel:
        raise InputError(
            f"{sweep.folder}: the registered judge '{judge}' gave no judgements{did_you_mean(judge, panel)} The "
            f"results have {', '.join(panel)}"
        )
    tested = [job for job in jobs if job.kind in TESTED]
    seeds = tuple(plan.get("seeds") or sorted({job.seed for job in tested}))
    n_sets = _n_sets(jobs)
    if n_sets is None and sweep.plan:
        n_sets = sweep.plan.get("n_sets")
    controls = tuple(
        arm
        for arm in plan.get("arms") or _names(sweep.jobs, "random")
        if arm.startswith("random-") and (n_sets is None or _number(arm) < n_sets)
    )
    have = {arm: {job.seed for job in jobs if job.arm == arm} for arm in ("attributed", *controls)}
    used = tuple(seed for seed in seeds if seed in have["attributed"])
    arm = sweep.run["arm"]
    other = tuple(name for name in controls if _derived_from_another(name, jobs, arm["attributed"]))
    entered = tuple(name for name in controls if used and have[name] >= set(used) and name not in other)
    lacking = [(arm, [s for s in seeds if s not in have[arm]]) for arm in ("attributed", *controls)]
    return Design(
        primary=asked("primary"),
        judge=judge,
        alternative=asked("alternative"),
        alpha=asked("alpha"),
        margin=asked("margin"),
        effect=asked("effect"),
        level=sweep.run["statistics"]["confidence"],
        power=sweep.run["statistics"]["power"],
        attributed=tuple(arm["attributed"]),
        candidates=tuple(arm["candidates"]),
        n_sets=n_sets,
        planned_seeds=seeds,
        seeds=used,
        generation_seeds=tuple(sorted({row["seed"] for row in sweep.run["problems"]["rows"]})),
        planned_controls=controls,
        controls=entered,
        unregistered=tuple(a for a in _names(jobs, "random") if a not in controls),
        incomplete=tuple(
            {"arm": name, "missing": missing, "entered": name in entered or (name == "attributed" and bool(used))}
            for name, missing in lacking
            if missing
        ),
        other_attributed=other,
    )


def _derived_from_another(arm: str, jobs: Sequence[Job], attributed: Sequence[int]) -> bool:
    """Whether a job of an arm was derived from another attributed set."""
    sets = [job.result["arm"]["attributed"] for job in jobs if job.arm == arm and job.result is not None]
    return any(sorted(own) != sorted(attributed) for own in sets)


def _names(jobs: Sequence[Job], kind: str) -> list[str]:
    """Returns the arms of a kind, sorted by number."""
    names = {job.arm for job in jobs if job.kind == kind}
    return sorted(names, key=_number)


def _number(arm: str) -> int:
    """Returns the number of the draw: 3 for `random-3`."""
    return int(arm.rpartition("-")[2])


def _n_sets(jobs: Sequence[Job]) -> int | None:
    """Returns the number of other sets, from the result of a tested arm."""
    sizes = [job.result["arm"]["n_sets"] for job in jobs if job.result and job.kind in TESTED]
    return sizes[0] if sizes else None


def deviations(sweep: LoadedSweep) -> list[str]:
    """Returns sentences on what differs from the first registration or, without a plan, that there was none."""
    if not sweep.plan:
        return ["No plan was registered before the results: there is no plan.json in this folder."]
    rows = sweep.plan["registrations"]
    found = []
    if rows[0].get("n_results"):
        n = rows[0]["n_results"]
        found.append(f"The plan was first registered when {n} result{'' if n == 1 else 's'} already existed.")
    for row in rows[1:]:
        when = _when(row.get("n_results", 0))
        differs = [name for name in WORDS if row.get(name) != rows[0].get(name)]
        if {"n_random", "n_excluding"} & set(differs):
            differs = [name for name in differs if name != "arms"]
        found += [
            f"{_capital(WORDS[name])} changed from {_value(rows[0].get(name))} to {_value(row.get(name))} {when} "
            f"({row.get('at', 'at an unknown time')}); the first registration holds."
            for name in differs
        ]
    return list(dict.fromkeys(found)) + trained_before(sweep.done(), rows[0]) + _against_results(sweep, rows)


def _against_results(sweep: LoadedSweep, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns sentences on results that differ from what every registration asked for."""
    found = []
    planned = rows[0].get("generation_seeds")
    ran = sorted({row["seed"] for row in sweep.run["problems"]["rows"]})
    if planned is not None and sorted(planned) != ran:
        found.append(f"The generation seeds {_value(planned)} were registered, but the results have {_value(ran)}.")
    allowed = {name: [row.get(name) for row in rows] for name in BINDING}
    other: dict[str, list[str]] = {}
    for job in sweep.done():
        assert job.result is not None
        own = job.result["config"].get("sweep") or {}
        for name in BINDING:
            if name in own and own[name] not in (*allowed[name], ""):  # an empty judge means the first of the panel
                other.setdefault(f"{WORDS[name]} {_value(own[name])}", []).append(f"{job.arm}, seed {job.seed}")
    return found + [
        f"{len(jobs)} result{'s' if len(jobs) > 1 else ''} ({'; '.join(jobs[:3])}{', ...' if len(jobs) > 3 else ''}) "
        f"ran with {words}, which is not in plan.json."
        for words, jobs in other.items()
    ]


def _when(n_results: int) -> str:
    if not n_results:
        return "before any result"
    return f"when {n_results} result{'s' if n_results > 1 else ''} existed"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} ({', '.join(map(str, value))})" if len(value) <= 6 else f"{len(value)}"
    return f"'{value}'" if isinstance(value, str) else str(value)


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
