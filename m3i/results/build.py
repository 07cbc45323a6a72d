"""Builds the JSON document of a result from the artifacts of a run."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import m3i
from m3i.artifacts import (
    Adapter,
    Answer,
    Answers,
    Artifact,
    Audit,
    BaseModel,
    Contrasts,
    Export,
    LayerScores,
    LayerSelection,
    PreferencePairs,
    ProblemSet,
    TargetInfo,
    Telemetry,
    Traces,
    Verdicts,
)
from m3i.audits.accuracy import places_section
from m3i.audits.shared_errors import error_correlation
from m3i.component import library_version, plain
from m3i.config.settings import StatisticsSettings
from m3i.errors import StageError
from m3i.results import model
from m3i.results import traces as of_traces
from m3i.results.answers import accuracy_section, problem_rows
from m3i.results.costs import costs_section
from m3i.results.judges import judge_agreement, judge_section, shared_families
from m3i.store.store import StageRecord
from m3i.wording.caveats import caveats
from m3i.wording.next_steps.run import next_steps
from m3i.wording.run import verdict_section

FORMAT = 3
"""Version of the layout of result.json; raised when a field changes its meaning."""
LIBRARIES = ("torch", "transformers", "peft", "trl", "llama-cpp-python", "gguf", "numpy", "scipy")


@dataclass(frozen=True, kw_only=True)
class RunArtifacts:
    """Everything that the result of one arm is built from."""

    info: TargetInfo
    """The target."""
    problems: ProblemSet
    traces: Traces
    """The target's reasoning on the train problems."""
    telemetry: Telemetry
    audits: Mapping[str, Audit]
    """Observer's alias → audit."""
    contrasts: Contrasts
    """Contrasts of all observers, with the observers' agreement."""
    scores: Mapping[str, LayerScores]
    """Attributor's alias → scores."""
    arm: Mapping[str, Any]
    """The arm (m3i.config.arms.arm_section)."""
    selection: LayerSelection
    """The layers that were trained."""
    pairs: PreferencePairs
    """The pairs that they were trained on."""
    adapter: Adapter
    base: BaseModel
    """The base GGUF."""
    export: Export
    """The tuned GGUF or llama.cpp adapter."""
    base_answers: Answers
    """Held-out answers before training."""
    tuned_answers: Answers
    """Held-out answers after training."""
    verdicts: Mapping[str, Verdicts]
    """Judge's alias → verdicts; the first judge gives the headline."""
    config: Mapping[str, Any]
    """The composed configuration as plain values."""
    overrides: Sequence[str] = ()
    """The overrides of the configuration."""
    command: str = ""
    """The command line that the user typed."""
    stages: Sequence[StageRecord] = ()
    """How each stage was obtained: computed or from the store."""
    components: Sequence[Mapping[str, str]] = ()
    """`place`, `name`, `distribution`, `version` of every component used."""
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    """Confidence, power, bootstrap."""
    created: str = ""
    """Time of the run; the current time if empty."""
    ledger: Mapping[str, Any] | None = None
    """What this process's ledger counted (m3i.ledger.Tally as a mapping); None if no remote model is called."""


def build_result(run: RunArtifacts) -> dict[str, Any]:
    """The result of one arm as JSON values; m3i.results.schema documents each field.

    Raises:
        StageError: There is no judge, or base and tuned answers are not to the same questions.
    """
    settings = run.statistics
    if not run.verdicts:
        raise StageError("no judge gave verdicts; choose one, e.g. judge=verifier")
    before, after = matched(run.base_answers, run.tuned_answers)
    train = {p.id: p for p in run.problems.train}
    result: dict[str, Any] = {
        "format": FORMAT,
        "m3i": m3i.__version__,
        "created": run.created or time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "command": run.command,
        "overrides": list(run.overrides),
        "config": plain(dict(run.config)),
        "statistics": asdict(settings),
        "arm": dict(run.arm),
        "judges": {alias: judge_section(v, before, after, settings) for alias, v in run.verdicts.items()},
        "judge_agreement": judge_agreement(run.verdicts),
        "accuracy": accuracy_section(before, after, settings),
        "problems": {
            "n_train": len(run.problems.train),
            "n_held_out": len(run.problems.held_out),
            "rows": problem_rows(run.problems.held_out, before, after, run.verdicts),
        },
        "target": model.target_section(run.info),
        "parameters": model.parameters_section(run.info, run.adapter),
        "layers": model.layers_section(run.info, run.scores, run.selection),
        "training": model.training_section(run.pairs, run.adapter, train),
        "certificates": model.certificates_section(run.adapter, run.export),
        "base_model": model.base_section(run.base),
        "traces": of_traces.traces_section(run.traces, run.audits),
        "telemetry": of_traces.telemetry_section(run.telemetry, run.traces, run.audits),
        "observers": of_traces.observers_section(run.audits, run.traces, level=settings.confidence),
        "agreement": dict(run.contrasts.agreement),
        "errors": error_correlation(
            run.audits,
            run.traces.traces,
            level=settings.confidence,
            n_bootstrap=settings.n_bootstrap,
            seed=settings.seed,
        ),
        "places": places_section(
            run.audits, run.traces.traces, truth=span_truth(run.audits, run.components), level=settings.confidence
        ),
        "contrasts": of_traces.contrasts_section(run.contrasts),
        "examples": of_traces.examples_section(run.audits, run.traces, train),
        "evaluation": {
            "base_time_s": run.base_answers.time_s,
            "tuned_time_s": run.tuned_answers.time_s,
            "n_threads": run.tuned_answers.n_threads,
        },
        "stages": [asdict(record) for record in run.stages],
        "costs": costs_section(
            stages=run.stages,
            observers=[a.calls for a in run.audits.values()],
            judges=[v.calls for v in run.verdicts.values()],
            ledger=run.ledger,
        ),
        "families": shared_families(
            {alias: v.calls.family for alias, v in run.verdicts.items()},
            {alias: a.calls.family for alias, a in run.audits.items()},
            run.info.family,
        ),
        "components": [dict(row) for row in run.components],
        "versions": {"python": platform.python_version()} | {name: library_version(name) for name in LIBRARIES},
        "ids": ids(
            run.problems,
            run.traces,
            run.telemetry,
            *run.audits.values(),
            run.contrasts,
            *run.scores.values(),
            run.selection,
            run.pairs,
            run.adapter,
            run.base,
            run.export,
            run.base_answers,
            run.tuned_answers,
            *run.verdicts.values(),
        ),
    }
    result["verdict"] = verdict_section(result)
    result["caveats"] = caveats(result)
    result["next"] = next_steps(result)
    return result


def span_truth(audits: Mapping[str, Audit], components: Sequence[Mapping[str, str]]) -> str | None:
    """Alias of the observer that recomputes every step, against which the others are measured; None without one."""
    places = {row["place"]: row["name"] for row in components}
    return next((alias for alias in audits if places.get(f"observer.{alias}", alias) == "checker"), None)


def to_json(result: Mapping[str, Any]) -> str:
    """The text of result.json. Raises ValueError on a number that is not finite."""
    return json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def matched(base: Answers, tuned: Answers) -> tuple[list[Answer], list[Answer]]:
    """Both models' answers to the same questions, in the base order. Raises StageError if they do not match."""
    table = {(a.problem_id, a.seed): a for a in tuned.answers}
    keys = [(a.problem_id, a.seed) for a in base.answers]
    if set(keys) != set(table):
        raise StageError(
            f"base and tuned model did not answer the same questions ({len(set(keys) ^ set(table))} differ); evaluate "
            f"both on the same problems with the same evaluate.seeds"
        )
    return list(base.answers), [table[key] for key in keys]


def ids(*artifacts: Artifact) -> list[dict[str, str]]:
    """Kind, name and id of every artifact, in the order of the stages."""
    rows = []
    for artifact in artifacts:
        name = ""
        if isinstance(artifact, Audit):
            name = artifact.observer
        elif isinstance(artifact, LayerScores):
            name = artifact.attributor
        elif isinstance(artifact, Verdicts):
            name = artifact.judge
        rows.append({"kind": artifact.kind, "name": name, "id": artifact.id})
    return rows
