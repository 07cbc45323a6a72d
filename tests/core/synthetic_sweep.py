"""A made-up but consistent sweep: a folder of real results of several arms and training seeds, with its plan.

Every result is what `build_result` makes of artifacts, so compare reads what a run writes. Which tuned answers are
right follows a rule: a random world by default, any table in tests that compute a statistic by hand.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthetic_run import MODULES as TRAINED_MODULES
from synthetic_run import _adapter, _answer, _export, _model_verdicts, _verdicts, synthetic_run

from m3i.artifacts import EQUAL, Answer, Answers, LayerSelection, Outcome, Problem, TargetInfo, Verdicts, merge
from m3i.config.arms import ArmKind, arm_section, parse_arm, select_for
from m3i.config.settings import StatisticsSettings
from m3i.results import RunArtifacts, build_result, to_json
from m3i.store.store import StageRecord

Rule = Callable[[str, int, int, int], bool | None]
"""(arm, training seed, number of the problem, generation seed) → the tuned answer is right; None: the base's answer."""

SHARED = ("problems", "trace", "observe", "telemetry", "contrast", "attribute", "select", "pairs", "reference", "base")
OWN = ("train", "export", "evaluate", "judge")
SETTINGS = {
    "primary": "score", "judge": "", "alternative": "greater", "alpha": 0.05, "margin": 0.05, "effect": 0.6,
}  # fmt: skip


def arm_names(*, n_random: int, n_excluding: int = 0, others: Sequence[str] = ("all", "shuffled", "sham")) -> list[str]:
    """All arms of a sweep, the attributed one first."""
    drawn = [f"random-{i}" for i in range(n_random)] + [f"excluding-{i}" for i in range(n_excluding)]
    return ["attributed", *drawn, *others]


def jobs_of(arms: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """(arm, training seed) of every job; the sham arm runs at the first seed alone."""
    return [(arm, seed) for arm in arms for seed in (seeds[:1] if arm == "sham" else seeds)]


def random_world(*, effect: float, between: float = 0.03, within: float = 0.02, seed: int = 0) -> Rule:
    """Tuned answers differ from the base's in four of ten cases, and are then right with the arm's own probability."""

    def rule(arm: str, training: int, problem: int, generation: int) -> bool | None:
        if arm == "sham":
            return None
        own, trained = random.Random(f"{seed} {arm}"), random.Random(f"{seed} {arm} {training}")
        skill = 0.7 + (effect if arm == "attributed" else -0.15 if arm == "shuffled" else own.gauss(0, between))
        skill += trained.gauss(0, within)
        luck = random.Random(f"{seed} {arm} {training} {problem} {generation}")
        return luck.random() < skill if luck.random() < 0.4 else None

    return rule


def base_luck(problem: int, generation: int) -> bool:
    """Whether the base model's answer is right: about seven in ten."""
    return random.Random(f"base {problem} {generation}").random() < 0.7


def synthetic_results(
    *,
    jobs: Sequence[tuple[str, int]],
    rule: Rule,
    base_right: Callable[[int, int], bool] = base_luck,
    n_held_out: int = 20,
    generation_seeds: tuple[int, ...] = (0,),
    judges: Sequence[str] = ("verifier",),
    layers: Mapping[str, tuple[int, ...]] | None = None,
    missing: Callable[[str, str, int, int], bool] = lambda judge, arm, seed, problem: False,
    settings: Mapping[str, Any] | None = None,
    models: bool = False,
    n_layers: int = 12,
) -> dict[tuple[str, int], dict[str, Any]]:
    """Results by (arm, training seed).

    Args:
        jobs: What to build.
        rule: Which tuned answers are right.
        base_right: (number of the problem, generation seed) → the base's answer is right.
        n_held_out: Held-out problems.
        generation_seeds: Answers a problem.
        judges: Of `verifier` (no noise), `gpt` (noisy, asked three times, with canaries).
        layers: Arm → layers that it is to have instead of its own.
        missing: (judge, arm, training seed, number of the problem) → no valid verdict.
        settings: `sweep` section of the config.
        models: Observers that ask language models.
        n_layers: Of the target.
    """
    shared = synthetic_run(n_layers=n_layers, n_held_out=n_held_out, seeds=generation_seeds, models=models, seed=3)
    info: TargetInfo = shared["info"]
    attributed: LayerSelection = shared["selection"]
    held_out: tuple[Problem, ...] = shared["problems"].held_out
    base = tuple(
        _made(f"base {i} {g}", problem, g, base_right(i, g)) for i, problem in enumerate(held_out)
        for g in generation_seeds
    )  # fmt: skip
    number = {problem.id: i for i, problem in enumerate(held_out)}
    results = {}
    for place, (name, seed) in enumerate(jobs):
        arm = parse_arm(name)
        sham = arm.kind is ArmKind.SHAM
        selection = select_for(arm, attributed, info)
        if layers and name in layers:
            selection = replace(selection, layers=layers[name])
        rng = random.Random(f"job {name} {seed}")
        tuned = []
        for answer in base:
            problem = number[answer.problem_id]
            right = rule(name, seed, problem, answer.seed)
            luck = f"{name} {seed} {problem} {answer.seed}"
            tuned.append(answer if right is None else _made(luck, held_out[problem], answer.seed, right))
        panel = {}
        for judge in judges:
            lost = {p.id for i, p in enumerate(held_out) if missing(judge, name, seed, i)}
            panel[judge] = _panel(judge, base, tuple(tuned), rng, lost)
        tensors = [(layer, module, shape) for layer in selection.layers for module, shape in TRAINED_MODULES.items()]
        pairs = shared["pairs"]
        if arm.kind is ArmKind.SHUFFLED:
            counts = {**pairs.counts, "pairs: swapped": len(pairs.pairs) // 2}
            pairs = replace(pairs, id=f"shuffled {seed}", counts=counts)
        arguments = shared | {
            "arm": arm_section(arm, attributed, info, seed=seed),
            "selection": selection,
            "pairs": pairs,
            "adapter": _adapter(rng, tensors, sham),
            "export": _export(rng, tensors, sham),
            "base_answers": Answers(id="x" * 32, answers=base, time_s=21.0),
            "tuned_answers": Answers(id=f"answers {name} {seed}", answers=tuple(tuned), time_s=22.0),
            "verdicts": panel,
            "config": shared["config"] | {"seed": seed, "arm": name, "sweep": dict(settings or SETTINGS)},
            "overrides": [f"arm={name}", f"seed={seed}"],
            "command": "python -m m3i -m +sweep=control",
            "stages": _stages(name, seed, first=place == 0, sham=sham, rng=rng),
            "statistics": StatisticsSettings(n_bootstrap=100),
        }
        results[name, seed] = json.loads(to_json(build_result(RunArtifacts(**arguments))))
    return results


def write_sweep(
    folder: Path,
    results: Mapping[tuple[str, int], Mapping[str, Any]],
    *,
    failed: Mapping[tuple[str, int], str] | None = None,
    not_started: Sequence[tuple[str, int]] = (),
    registrations: Sequence[Mapping[str, Any]] | None = None,
    plan: bool = True,
) -> Path:
    """Writes the folder that a sweep leaves: plan.json, and result.json and progress.jsonl of every job.

    Args:
        folder: Where.
        results: By (arm, training seed).
        failed: Jobs that failed → their error.
        not_started: Jobs of the plan that have not run.
        registrations: Of plan.json; one that fits the jobs when None.
        plan: Whether there is a plan.json.
    """
    failures = dict(failed or {})
    jobs = list(dict.fromkeys([*results, *failures, *not_started]))
    for arm, seed in jobs:
        place = folder / arm / f"seed-{seed}"
        place.mkdir(parents=True, exist_ok=True)
        if (arm, seed) in not_started:
            continue
        error = failures.get((arm, seed), "")
        if not error:
            (place / "result.json").write_text(json.dumps(counted(results[arm, seed])), encoding="utf-8")
        ended = "failed" if error else "done"
        events = [
            {"event": "begin", "at": 1764000000.0 + 60 * seed, "n_stages": 19, "pid": 1, "host": "node"},
            {"event": "start", "stage": "train", "label": ""},
            {
                "event": "end",
                "at": 1764000100.0,
                "state": ended,
                "error": error,
                "cost_usd": None,
            },
        ]
        (place / "progress.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events), encoding="utf-8")
    if plan:
        arms = list(dict.fromkeys(arm for arm, _ in jobs))
        any_result = next(iter(results.values()))
        document = {
            "format": 1,
            "m3i": "0.1.0",
            "command": "python -m m3i -m +sweep=control",
            "overrides": ["+sweep=control"],
            "registrations": list(registrations or [registration(any_result, arms, sorted({s for _, s in jobs}))]),
            "jobs": [{"arm": arm, "seed": seed, "folder": f"{arm}/seed-{seed}"} for arm, seed in jobs],
            "n_sets": any_result["arm"]["n_sets"],
        }
        (folder / "plan.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def counted(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with ballots and counts that fit its outcomes and right answers, which tests change by hand."""
    found: dict[str, Any] = copy.deepcopy(dict(result))
    rows = found["problems"]["rows"]
    for row in rows:
        for verdict in row["verdicts"].values():
            pair = {"split": ("base", "tuned")}.get(verdict["outcome"], (verdict["outcome"],) * 2)
            if merged(verdict) != verdict["outcome"]:
                verdict["first"], verdict["second"] = pair
    for judge, section in found["judges"].items():
        counts = Counter(row["verdicts"][judge]["outcome"] for row in rows)
        section["counts"] = {name: counts[name] for name in section["counts"]}
    for side in ("base", "tuned"):
        found["accuracy"][side]["right"] = sum(row[side]["correct"] for row in rows)
    return found


def merged(verdict: Mapping[str, Any]) -> str:
    """The outcome that two ballots give."""
    return "tie" if verdict["first"] == verdict["second"] == EQUAL else merge(verdict["first"], verdict["second"]).value


def registration(
    result: Mapping[str, Any], arms: Sequence[str], seeds: Sequence[int], **changes: Any
) -> dict[str, Any]:
    """One registration of plan.json that fits a result's config."""
    fixed = {
        "at": "2026-11-22 20:00:00+0000",
        "n_results": 0,
        **SETTINGS,
        **{name: value for name, value in result["config"]["sweep"].items() if name in SETTINGS},
        "n_random": sum(arm.startswith("random-") for arm in arms),
        "n_excluding": sum(arm.startswith("excluding-") for arm in arms),
        "arms": list(arms),
        "seeds": list(seeds),
        "generation_seeds": sorted({row["seed"] for row in result["problems"]["rows"]}),
    }
    return fixed | changes


def _made(luck: str, problem: Problem, seed: int, right: bool) -> Answer:
    return replace(_answer(random.Random(luck), problem, seed, 1.0 if right else 0.0), truncated=False)


def _panel(
    judge: str, base: tuple[Answer, ...], tuned: tuple[Answer, ...], rng: random.Random, missing: set[str]
) -> Verdicts:
    made = (
        _model_verdicts(judge, base, tuned, rng, hostile=False)
        if judge == "gpt"
        else _verdicts(judge, base, tuned, rng, noise=0.0)
    )
    lost = tuple(
        replace(v, outcome=Outcome.MISSING, first="missing") if v.problem_id in missing else v for v in made.verdicts
    )
    return replace(made, verdicts=lost, n_equal=sum(v.first == "equal" for v in lost))


def _stages(arm: str, seed: int, *, first: bool, sham: bool, rng: random.Random) -> list[StageRecord]:
    rows = []
    for i, stage in enumerate(SHARED):
        made = 3.0 + i
        rows.append(_stage(stage, f"shared {stage}", hit=not first, made_in_s=made))
    for i, stage in enumerate(OWN):
        made = 0.4 if sham else 12.0 + 5 * i + rng.random()
        rows.append(_stage(stage, f"{arm} {seed} {stage}", hit=False, made_in_s=made))
    return rows


def _stage(stage: str, key: str, *, hit: bool, made_in_s: float) -> StageRecord:
    return StageRecord(
        stage=stage, label="", key=key, hit=hit, why="" if hit else "first time", time_s=0.01 if hit else made_in_s,
        made_in_s=made_in_s, peak_memory_bytes=10**9,
    )  # fmt: skip
