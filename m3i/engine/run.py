"""The engine: one straight function, one line per stage. Follow a parameter from here to the artifact."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import m3i
from m3i import stages
from m3i.config.arms import ArmKind, arm_section
from m3i.config.experiment import Experiment
from m3i.config.registry import Registry, installed
from m3i.engine.folders import ledger_path, new_run_dir, store_root
from m3i.engine.preflight import preflight, read_sources
from m3i.engine.tracking import track_run
from m3i.errors import M3IError, TrackingError
from m3i.ledger import Ledger
from m3i.ledger.secrets import redact
from m3i.models.session import TargetSession
from m3i.progress.display import Display
from m3i.progress.journal import Journal
from m3i.stages.context import RunContext
from m3i.store.source import core_files, hash_contents
from m3i.store.store import Store


@dataclass(frozen=True)
class Run:
    """What a finished run returns."""

    result: dict[str, Any]
    """Content of result.json (schema: docs/schema.md)."""
    summary: tuple[str, ...]
    """The result in a few lines of text."""
    run_dir: Path
    report: Path
    """The HTML page."""


def run(
    experiment: Experiment,
    *,
    run_dir: Path | None = None,
    quiet: bool = False,
    registry: Registry | None = None,
    command: str = "",
) -> Run:
    """Runs the experiment; stages that are already in the store are taken from it.

    Args:
        experiment: What to run.
        run_dir: Folder for result.json and report.html; a new one under `outputs/` if None.
        quiet: Whether to hide the progress display.
        registry: Where components come from; the installed plugins if None.
        command: What the user typed, for the report.

    Raises:
        M3IError: Anything that the user can fix; finished stages stay in the store.
    """
    run_dir = run_dir or new_run_dir()
    with contextlib.ExitStack() as open_things:
        journal = Journal(run_dir)
        paid = open_things.enter_context(recorded(journal))
        registry = registry or installed()
        session = TargetSession(experiment.target)
        preflight(experiment, session.info)
        read_sources(experiment, registry)
        store = Store(store_root(experiment))
        display = Display(quiet=quiet, journal=journal)
        ledger = Ledger(experiment.settings.ledger, default_path=ledger_path(experiment), note=display.note)
        open_things.callback(ledger.close)
        paid.append(ledger)
        if experiment.asks_remotely:
            ledger.known(())  # finds an unusable file or recording now, not after sampling
        return run_stages(RunContext(experiment, registry, store, display, session, ledger), run_dir, command)


@contextlib.contextmanager
def recorded(journal: Journal) -> Iterator[list[Ledger]]:
    """Records in the journal how the run ends and what it paid; the caller puts the run's ledger into the list."""
    ledgers: list[Ledger] = []
    state, error = "failed", ""
    try:
        journal.begin()
        yield ledgers
        state = "done"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    except TrackingError as problem:  # the result is already written
        state, error = "done", redact(str(problem))
        raise
    except BaseException as problem:
        error = redact(str(problem) if isinstance(problem, M3IError) else f"{type(problem).__name__}: {problem}")
        raise
    finally:
        with contextlib.suppress(OSError):  # a full disk: the original error is already being raised
            journal.end(state, error=error, cost_usd=ledgers[0].paid_usd if ledgers else None)


def run_stages(context: RunContext, run_dir: Path, command: str) -> Run:
    """Runs the experiment itself, from problems to the report."""
    experiment, session = context.experiment, context.session
    context.display.begin(planned_stages(experiment))

    problems = stages.problems.run(context)
    traces = stages.trace.run(context, problems)
    telemetry = stages.telemetry.run(context, traces)
    audits = {
        a: stages.observe.run(context, a, observer, problems, traces, telemetry)
        for a, observer in experiment.observers.items()
    }
    contrasts = stages.contrast.run(context, problems, traces, audits)
    scores = {
        a: stages.attribute.run(context, a, attributor, traces, telemetry, audits, contrasts)
        for a, attributor in experiment.attributors.items()
    }
    attributed = stages.select.run(context, scores)
    arm = arm_section(experiment.arm, attributed, session.info, seed=experiment.settings.seed)
    context.display.arm(arm)
    selection = stages.arm.run(context, attributed)
    pairs = stages.pairs.run(context, problems, traces)
    reference = stages.reference.run(context, pairs)
    pairs, reference = stages.shuffle.run(context, pairs, reference)
    adapter = stages.train.run(context, selection, pairs, reference)
    base = stages.base.run(context, traces)
    export = stages.export.run(context, base, adapter, selection, traces)
    base_answers = stages.answer.run(context, problems, base, None)
    tuned_answers = stages.answer.run(context, problems, base, export)
    verdicts = {
        a: stages.judge.run(context, a, judge, problems, base_answers, tuned_answers)
        for a, judge in experiment.judges.items()
    }

    from m3i.engine.write import write_run
    from m3i.results.build import RunArtifacts, build_result
    from m3i.wording.run import summary_lines

    result = build_result(
        RunArtifacts(
            info=session.info,
            problems=problems,
            traces=traces,
            telemetry=telemetry,
            audits=audits,
            contrasts=contrasts,
            scores=scores,
            arm=arm,
            selection=selection,
            pairs=pairs,
            adapter=adapter,
            base=base,
            export=export,
            base_answers=base_answers,
            tuned_answers=tuned_answers,
            verdicts=verdicts,
            config=experiment.config,
            overrides=experiment.overrides,
            command=command,
            stages=tuple(context.records),
            components=tuple(component_table(context)),
            statistics=experiment.settings.statistics,
            ledger=asdict(context.ledger.tally()) if experiment.asks_remotely else None,
        )
    )
    report = write_run(result, run_dir)
    track_run(experiment.trackers, result, run_dir, overrides=experiment.overrides, note=context.display.note)
    return Run(result=result, summary=tuple(summary_lines(result, report=report)), run_dir=run_dir, report=report)


def planned_stages(experiment: Experiment) -> list[str]:
    """Returns every stage of the run, by name and label, in order."""
    arm = experiment.arm
    derived = [] if arm.kind in (ArmKind.ATTRIBUTED, ArmKind.SHUFFLED) else [f"arm {arm.name}"]
    shuffled = ["shuffle pairs", "shuffle reference"] if arm.kind is ArmKind.SHUFFLED else []
    return [
        "problems",
        "trace",
        "telemetry",
        *(f"observe {alias}" for alias in experiment.observers),
        "contrast",
        *(f"attribute {alias}" for alias in experiment.attributors),
        "select",
        *derived,
        "pairs",
        "reference",
        *shuffled,
        "train",
        "base",
        "export",
        "answer base",
        "answer tuned",
        *(f"judge {alias}" for alias in experiment.judges),
    ]


def component_table(context: RunContext) -> list[dict[str, str]]:
    """Returns name, distribution, version and source hash of the core and of every component, for the record."""
    core = hash_contents(sorted(core_files().items()))
    table = [{"place": "core", "name": "m3i", "distribution": "m3i", "version": m3i.__version__, "source": core[:16]}]
    for place, component in context.experiment.components.items():
        entry = context.registry.entry_of(place.partition(".")[0], component)
        table.append(
            {
                "place": place,
                "name": entry.name,
                "distribution": entry.distribution,
                "version": entry.version,
                "source": entry.source_hash()[:16],
            }
        )
    return table
