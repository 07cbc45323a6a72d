"""Checks of what must be the same in all arms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from m3i.sweep.design import Design
from m3i.sweep.load import Job
from m3i.sweep.plan import options_of_all
from m3i.wording.formats import count, percent

SHARED_KINDS = ("problems", "traces", "telemetry", "audit", "contrasts", "scores", "pairs", "base")
GATES = ("target", "problems", "attributed", "population", "config", "shared", "parameters", "sham", "certificates")
"""Checks that must pass for a difference between the tested arms to say anything about layers."""
ENTRY = dict[str, Any]


def checks_section(jobs: Sequence[Job], design: Design, arms: Sequence[Mapping[str, Any]]) -> list[ENTRY]:
    """Returns each check with `name`, `passed` (None where there was nothing to check) and `words`."""
    results = [(job, job.result) for job in jobs if job.result is not None]
    return [
        same("m3i", "M3I", "the same version", results, lambda r: r["m3i"]),
        same("target", "target", "the same model", results, lambda r: r["target"]["revision"]),
        same("versions", "libraries", "the same library versions", results, lambda r: r["versions"]),
        same("components", "components", "the same ones in the same versions", results, _components),
        same("problems", "held-out problems", "the same ones", results, _questions),
        same("attributed", "attributed layers", "the same set", results, lambda r: r["arm"]["attributed"]),
        same("population", "layer sets to draw from", "the same ones", _not_excluding(results), _population),
        same(
            "config",
            "options",
            "the same ones, apart from arm and seed",
            results,
            lambda r: options_of_all(r["config"]),
        ),
        shared_artifacts(results),
        trained_parameters(arms),
        distinct_sets(results, design),
        sham(results),
        certificates(results),
        shuffled(arms),
    ]


def refusal(jobs: Sequence[Job], design: Design, arms: Sequence[Mapping[str, Any]]) -> str:
    """Returns a sentence on why a failed check rules out a valid test; empty where none does.

    Only the sham arm, and the attributed and planned random arms at the seeds of the test, count: what is wrong with
    other arms is a caveat.
    """
    tested = ("attributed", *design.planned_controls)
    own = [job for job in jobs if job.kind == "sham" or (job.arm in tested and job.seed in design.seeds)]
    if not any(job.arm in tested for job in own):
        return ""
    rows = [dict(row) | {"trained_by_seed": _at_seeds(row, design.seeds)} for row in arms if row["arm"] in tested]
    failed = [check for check in checks_section(own, design, rows) if check["name"] in GATES]
    failed = [check for check in failed if check["passed"] is False]
    if not failed:
        return ""
    words = " ".join(check["words"] for check in failed)
    return (
        f"{'A check' if len(failed) == 1 else count(len(failed), 'check')} failed "
        f"({', '.join(check['name'] for check in failed)}), so a difference between arms need not come from their "
        f"layers. {words}"
    )


def _at_seeds(row: Mapping[str, Any], seeds: Sequence[int]) -> list[int]:
    """Returns the trained parameters of an arm at the seeds of the test."""
    return [n for seed, n in zip(row["seeds"], row["trained_by_seed"], strict=True) if seed in seeds]


def same(name: str, what: str, equal: str, results: Sequence[tuple[Job, Any]], read: Callable[[Any], Any]) -> ENTRY:
    """Checks whether all jobs have the same value, and names those that differ from most."""
    groups: dict[str, list[str]] = defaultdict(list)
    for job, result in results:
        groups[repr(read(result))].append(f"{job.arm}, seed {job.seed}")
    most = max(groups.values(), key=len)
    odd = [name for group in groups.values() if group is not most for name in group]
    words = (
        f"All {count(len(results), 'job')} have {equal}." if not odd else f"These jobs differ from most: {_list(odd)}."
    )
    return _entry(name, not odd, f"{what[0].upper()}{what[1:]}: {words[0].lower()}{words[1:]}")


def _questions(result: Mapping[str, Any]) -> list[tuple[str, int, bool]]:
    """Returns problems, generation seeds, and whether the base model's answer is correct."""
    return [(row["problem_id"], row["seed"], row["base"]["correct"]) for row in result["problems"]["rows"]]


def _not_excluding(results: Sequence[tuple[Job, Any]]) -> list[tuple[Job, Any]]:
    """Returns the jobs whose draws are from all other sets; excluding arms have fewer to draw from."""
    return [(job, result) for job, result in results if job.kind != "excluding"]


def _population(result: Mapping[str, Any]) -> tuple[list[int], int]:
    """Returns the candidate layers and the number of other sets."""
    return result["arm"]["candidates"], result["arm"]["n_sets"]


def _components(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Returns the components with the distributions they come from."""
    return sorted((row["place"], row["name"], row["distribution"], row["version"]) for row in result["components"])


def shared_artifacts(results: Sequence[tuple[Job, Any]]) -> ENTRY:
    """Checks that all jobs share the artifacts made before the selection, and the base model's answers.

    Shuffled arms have different pairs by design.
    """
    used: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for job, result in results:
        rows = list(result["ids"])
        base_answers = next(row for row in rows if row["kind"] == "answers")
        for row in [row for row in rows if row["kind"] in SHARED_KINDS] + [base_answers]:
            if row["kind"] == "pairs" and job.kind == "shuffled":
                continue
            label = "base answers" if row["kind"] == "answers" else f"{row['kind']} {row['name']}".strip()
            used[label][row["id"]].append(f"{job.arm}, seed {job.seed}")
    odd = [label for label, ids in used.items() if len(ids) > 1]
    if odd:
        jobs = [job for label in odd for group in list(used[label].values())[1:] for job in group]
        return _entry(
            "shared", False, f"Not the same in all arms: {_list(odd)} (differs in {_list(list(dict.fromkeys(jobs)))})."
        )
    return _entry("shared", True, f"All jobs use the same artifacts: {', '.join(used)}.")


def trained_parameters(arms: Sequence[Mapping[str, Any]]) -> ENTRY:
    """Checks that attributed and random arms train equally many parameters."""
    tested = [row for row in arms if row["kind"] in ("attributed", "random")]
    numbers = [n for row in tested for n in row["trained_by_seed"]]
    if len(set(numbers)) <= 1:
        words = f"The attributed and all random arms train {count(sum(numbers[:1]), 'parameter')} each."
        return _entry("parameters", True if len(tested) > 1 else None, words)
    most = max(set(numbers), key=numbers.count)
    odd = {row["arm"]: [n for n in row["trained_by_seed"] if n != most] for row in tested}
    listed = [f"{arm} ({' and '.join(f'{n:,}' for n in own)})" for arm, own in odd.items() if own]
    return _entry("parameters", False, f"Most tested arms train {count(most, 'parameter')}, except {_list(listed)}.")


def distinct_sets(results: Sequence[tuple[Job, Any]], design: Design) -> ENTRY:
    """Checks that all sets of the test differ, and that an arm has the same set at all its seeds."""
    sets: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for job, result in results:
        if job.kind in ("attributed", "random"):
            sets[job.arm].add(tuple(sorted(result["layers"]["selected"])))
    drawn = [arm for arm in sets if arm != "attributed"]
    if not drawn:
        return _entry("distinct", None, "There is no random arm.")
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    groups[tuple(sorted(design.attributed))].append("attributed")
    for arm in drawn:
        for layers in sets[arm]:
            groups[layers].append(arm)
    wrong = [f"{' = '.join(names)} ({list(layers)})" for layers, names in groups.items() if len(names) > 1]
    wrong += [f"{arm} at its training seeds: {sorted(map(list, own))}" for arm, own in sets.items() if len(own) > 1]
    if wrong:
        return _entry("distinct", False, f"Layer sets that repeat, or change within an arm: {_list(wrong)}.")
    words = f"All {count(len(drawn), 'random set')} differ from each other and from the attributed one."
    return _entry("distinct", True, words)


def sham(results: Sequence[tuple[Job, Any]]) -> ENTRY:
    """Checks that a zero update changes no answer."""
    own = [result for job, result in results if job.kind == "sham"]
    if not own:
        return _entry("sham", None, "No sham arm has a result.")
    n = sum(len(result["problems"]["rows"]) for result in own)
    differ = sum(not row["equal"] for result in own for row in result["problems"]["rows"])
    if differ:
        return _entry(
            "sham",
            False,
            f"Alarm: {differ} of {n} answers of the sham arm differ from the base model's although nothing was "
            f"trained. Something other than training changes answers; trust no arm until this is explained.",
        )
    return _entry("sham", True, f"All {n} answers of the sham arm equal the base model's, as they must.")


def certificates(results: Sequence[tuple[Job, Any]]) -> ENTRY:
    """Checks that the trained update is live in llama.cpp, in every job."""
    rows = [(job, r["certificates"]["export"]) for job, r in results if not r["layers"]["zero_update"]]
    if not rows:
        return _entry("certificates", None, "No arm with an update has a result.")
    failed = [f"{job.arm}, seed {job.seed}" for job, certificate in rows if not certificate["passed"]]
    job, least = min(rows, key=lambda row: row[1]["live_share"])
    share = f"the smallest live share of an adapter is {percent(least['live_share'])} ({job.arm}, seed {job.seed})"
    if failed:
        return _entry("certificates", False, f"Export certificates that failed: {_list(failed)}; {share}.")
    return _entry("certificates", True, f"All {len(rows)} export certificates passed; {share}.")


def shuffled(arms: Sequence[Mapping[str, Any]]) -> ENTRY:
    """Checks that half of the pairs of the shuffled arm are swapped."""
    row = next((row for row in arms if row["kind"] == "shuffled"), None)
    if row is None:
        return _entry("shuffled", None, "No shuffled arm has a result.")
    right = row["n_swapped"] == row["n_pairs"] // 2
    words = f"In the shuffled arm {row['n_swapped']} of {row['n_pairs']} pairs have chosen and rejected swapped"
    return _entry("shuffled", right, words + ("." if right else f", not {row['n_pairs'] // 2}."))


def _entry(name: str, passed: bool | None, words: str) -> ENTRY:
    return {"name": name, "passed": passed, "words": words}


def _list(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return "; ".join(names[:limit]) + more
