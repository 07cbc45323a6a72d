"""Artifacts in, one JSON document out."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
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
from m3i.results.comparisons import accuracy_section, judge_agreement, judge_section, problem_rows
from m3i.results.costs import costs_section
from m3i.results.judge_quality import shared_families
from m3i.store.store import StageRecord
from m3i.store.whole_files import write_texts
from m3i.wording.caveats import caveats
from m3i.wording.next_steps import next_steps
from m3i.wording.run import verdict_section

FORMAT = 3
"""Layout of result.json; raised when a field changes its meaning."""
LIBRARIES = ("torch", "transformers", "peft", "trl", "llama-cpp-python", "gguf", "numpy", "scipy")


def build_result(
    *,
    info: TargetInfo,
    problems: ProblemSet,
    traces: Traces,
    telemetry: Telemetry,
    audits: Mapping[str, Audit],
    contrasts: Contrasts,
    scores: Mapping[str, LayerScores],
    arm: Mapping[str, Any],
    selection: LayerSelection,
    pairs: PreferencePairs,
    adapter: Adapter,
    base: BaseModel,
    export: Export,
    base_answers: Answers,
    tuned_answers: Answers,
    verdicts: Mapping[str, Verdicts],
    config: Mapping[str, Any],
    overrides: Sequence[str] = (),
    command: str = "",
    stages: Sequence[StageRecord] = (),
    components: Sequence[Mapping[str, str]] = (),
    statistics: StatisticsSettings | None = None,
    created: str = "",
    ledger: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The result of one arm as JSON values; its fields are declared in `m3i.results.schema`.

    Args:
        info: The target.
        problems: Train and held-out problems.
        traces: The target's reasoning on the train problems.
        telemetry: Measured on them.
        audits: Observer's alias → audit.
        contrasts: Of all observers, with their agreement.
        scores: Attributor's alias → scores.
        arm: Which arm this is (m3i.config.arms.arm_section).
        selection: The layers trained.
        pairs: What they were trained on.
        adapter: What training gave.
        base: The base GGUF.
        export: The tuned GGUF or llama.cpp adapter.
        base_answers: Held-out answers before training.
        tuned_answers: Held-out answers after it.
        verdicts: Judge's alias → verdicts; the first judge gives the headline.
        config: The composed configuration as plain values.
        overrides: What was asked for.
        command: What the user typed.
        stages: How each stage was answered.
        components: `place`, `name`, `distribution`, `version` of every component used.
        statistics: Confidence, power, bootstrap; the defaults when None.
        created: Time of the run; now when empty.
        ledger: What this process's ledger counted (m3i.ledger.Tally as a mapping); None where nothing asks remotely.

    Raises:
        StageError: Without a judge, or when base and tuned answers are not for the same questions.
    """
    settings = statistics or StatisticsSettings()
    if not verdicts:
        raise StageError("no judge gave verdicts; choose one, e.g. judge=verifier")
    before, after = matched(base_answers, tuned_answers)
    train = {p.id: p for p in problems.train}
    result: dict[str, Any] = {
        "format": FORMAT,
        "m3i": m3i.__version__,
        "created": created or time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "command": command,
        "overrides": list(overrides),
        "config": plain(dict(config)),
        "statistics": asdict(settings),
        "arm": dict(arm),
        "judges": {alias: judge_section(v, before, after, settings) for alias, v in verdicts.items()},
        "judge_agreement": judge_agreement(verdicts),
        "accuracy": accuracy_section(before, after, settings),
        "problems": {
            "n_train": len(problems.train),
            "n_held_out": len(problems.held_out),
            "rows": problem_rows(problems.held_out, before, after, verdicts),
        },
        "target": model.target_section(info),
        "parameters": model.parameters_section(info, adapter),
        "layers": model.layers_section(info, scores, selection),
        "training": model.training_section(pairs, adapter, train),
        "certificates": model.certificates_section(adapter, export),
        "base_model": model.base_section(base),
        "traces": of_traces.traces_section(traces, audits),
        "telemetry": of_traces.telemetry_section(telemetry, traces, audits),
        "observers": of_traces.observers_section(audits, traces, level=settings.confidence),
        "agreement": dict(contrasts.agreement),
        "errors": error_correlation(
            audits, traces.traces, level=settings.confidence, n_bootstrap=settings.n_bootstrap, seed=settings.seed
        ),
        "places": places_section(
            audits, traces.traces, truth=span_truth(audits, components), level=settings.confidence
        ),
        "contrasts": of_traces.contrasts_section(contrasts),
        "examples": of_traces.examples_section(audits, traces, train),
        "evaluation": {
            "base_time_s": base_answers.time_s,
            "tuned_time_s": tuned_answers.time_s,
            "n_threads": tuned_answers.n_threads,
        },
        "stages": [asdict(record) for record in stages],
        "costs": costs_section(
            stages=stages,
            observers=[a.calls for a in audits.values()],
            judges=[v.calls for v in verdicts.values()],
            ledger=ledger,
        ),
        "families": shared_families(
            {alias: v.calls.family for alias, v in verdicts.items()},
            {alias: a.calls.family for alias, a in audits.items()},
            info.family,
        ),
        "components": [dict(row) for row in components],
        "versions": {"python": platform.python_version()} | {name: library_version(name) for name in LIBRARIES},
        "ids": ids(
            problems,
            traces,
            telemetry,
            *audits.values(),
            contrasts,
            *scores.values(),
            selection,
            pairs,
            adapter,
            base,
            export,
            base_answers,
            tuned_answers,
            *verdicts.values(),
        ),
    }
    result["verdict"] = verdict_section(result)
    result["caveats"] = caveats(result)
    result["next"] = next_steps(result)
    return result


def span_truth(audits: Mapping[str, Audit], components: Sequence[Mapping[str, str]]) -> str | None:
    """Alias of the observer that re-computes each step, whose places the others are measured by; None without one."""
    places = {row["place"]: row["name"] for row in components}
    return next((alias for alias in audits if places.get(f"observer.{alias}", alias) == "checker"), None)


def to_json(result: Mapping[str, Any]) -> str:
    """The text of result.json. Raises ValueError on a number that is not finite."""
    return json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_run(result: Mapping[str, Any], run_dir: Path) -> Path:
    """Writes `result.json` and `report.html` into `run_dir`, both or neither, and returns the page's path.

    The page is rendered from the file's content, so its numbers are the file's. A lone surrogate (half an emoji from a
    cut token) cannot be written as UTF-8: it becomes a visible escape.
    """
    from m3i.report import render_report

    run_dir.mkdir(parents=True, exist_ok=True)
    text = to_json(result)
    page = render_report(json.loads(text))
    report = run_dir / "report.html"
    write_texts({report: page, run_dir / "result.json": text})  # the result last: it says that the run is done
    return report


def matched(base: Answers, tuned: Answers) -> tuple[list[Answer], list[Answer]]:
    """Both models' answers to the same questions, in the base's order. Raises StageError where one is missing."""
    table = {(a.problem_id, a.seed): a for a in tuned.answers}
    keys = [(a.problem_id, a.seed) for a in base.answers]
    if set(keys) != set(table):
        raise StageError(
            f"base and tuned model did not answer the same questions: {len(set(keys) ^ set(table))} differ; "
            f"evaluate both with the same problems and evaluate.seeds"
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
