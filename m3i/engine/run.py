"""The engine: one straight function, a line a stage. Follow a parameter from here to the artifact."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import platformdirs

import m3i
from m3i import stages
from m3i.artifacts import TargetInfo
from m3i.component import Component
from m3i.config.arms import Arm, arm_section
from m3i.config.experiment import Experiment
from m3i.config.registry import Registry, hash_contents, installed
from m3i.config.settings import LedgerMode
from m3i.engine.tracking import track_run
from m3i.errors import ConfigError, M3IError, TrackingError, did_you_mean
from m3i.ledger import Ledger
from m3i.ledger.context import required_price
from m3i.ledger.secrets import redact
from m3i.llm.remote import RemoteModel
from m3i.models.session import Session
from m3i.progress.display import Display
from m3i.progress.journal import Journal
from m3i.stages.context import Lab, core_sources
from m3i.store.store import Store


@dataclass(frozen=True)
class Run:
    """What a finished run gives back."""

    result: dict[str, Any]
    """Content of result.json (schema: docs/reference.md)."""
    summary: tuple[str, ...]
    """The result in a few lines for people."""
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
    """Runs the experiment; stages that the store knows are answered from it.

    Args:
        experiment: What to do.
        run_dir: Folder for result.json and report.html; a new one under `outputs/` when None.
        quiet: No progress display.
        registry: Where components come from; the installed plugins when None.
        command: What the user typed, for the report.

    Raises:
        M3IError: anything the user can mend; finished stages stay in the store.
    """
    run_dir = run_dir or new_run_dir()
    with contextlib.ExitStack() as open_things:
        journal = Journal(run_dir)
        paid = open_things.enter_context(recorded(journal))
        registry = registry or installed()
        session = Session(experiment.target)
        preflight(experiment, session.info)
        read_sources(experiment, registry)
        store = Store(store_root(experiment))
        display = Display(quiet=quiet, journal=journal)
        ledger = Ledger(experiment.settings.ledger, default_path=ledger_path(experiment), note=display.note)
        open_things.callback(ledger.close)
        paid.append(ledger)
        if asks_remotely(experiment):
            ledger.known(())  # a file or a recording that cannot be used is found now, not after the traces
        return run_stages(Lab(experiment, registry, store, display, session, ledger), run_dir, command)


@contextlib.contextmanager
def recorded(journal: Journal) -> Iterator[list[Ledger]]:
    """Writes how the run ends, and what the ledger that is put into the list paid, into its journal."""
    ledgers: list[Ledger] = []
    state, error = "failed", ""
    try:
        journal.begin()
        yield ledgers
        state = "done"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    except TrackingError as problem:  # the result is there
        state, error = "done", redact(str(problem))
        raise
    except BaseException as problem:
        error = redact(str(problem) if isinstance(problem, M3IError) else f"{type(problem).__name__}: {problem}")
        raise
    finally:
        with contextlib.suppress(OSError):  # a full disk: the error itself is on its way
            journal.end(state, error=error, cost_usd=ledgers[0].paid_usd if ledgers else None)


def run_stages(lab: Lab, run_dir: Path, command: str) -> Run:
    """The experiment itself, from problems to the report."""
    experiment, session = lab.experiment, lab.session
    panels = len(experiment.observers) + len(experiment.attributors) + len(experiment.judges)
    lab.display.begin(12 + panels + stages.EXTRA.get(experiment.arm.kind, 1))

    problems = stages.problems(lab)
    traces = stages.trace(lab, problems)
    telemetry = stages.telemetry(lab, traces)
    audits = {a: stages.observe(lab, a, o, problems, traces, telemetry) for a, o in experiment.observers.items()}
    contrasts = stages.contrast(lab, problems, traces, audits)
    scores = {
        a: stages.attribute(lab, a, c, traces, telemetry, audits, contrasts) for a, c in experiment.attributors.items()
    }
    attributed = stages.select(lab, scores)
    arm = arm_section(experiment.arm, attributed, session.info, seed=experiment.settings.seed)
    lab.display.arm(arm)
    selection = stages.arm(lab, attributed)
    pairs = stages.pairs(lab, problems, traces)
    reference = stages.reference(lab, pairs)
    pairs, reference = stages.shuffle(lab, pairs, reference)
    adapter = stages.train(lab, selection, pairs, reference)
    base = stages.base(lab, traces)
    export = stages.export(lab, base, adapter, selection, traces.traces)
    before = stages.answer(lab, problems, base, None)
    after = stages.answer(lab, problems, base, export)
    verdicts = {a: stages.judge(lab, a, j, problems, before, after) for a, j in experiment.judges.items()}

    from m3i.results import build_result, summary_lines, write_run

    result = build_result(
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
        base_answers=before,
        tuned_answers=after,
        verdicts=verdicts,
        config=experiment.config,
        overrides=experiment.overrides,
        command=command,
        stages=lab.records,
        components=component_table(lab),
        statistics=experiment.settings.statistics,
        ledger=asdict(lab.ledger.tally()) if asks_remotely(experiment) else None,
    )
    report = write_run(result, run_dir)
    track_run(experiment.trackers, result, run_dir, overrides=experiment.overrides, note=lab.display.note)
    return Run(result=result, summary=tuple(summary_lines(result, report=report)), run_dir=run_dir, report=report)


def new_run_dir() -> Path:
    """A folder under `outputs/`, named by the time."""
    return Path("outputs") / time.strftime("%Y-%m-%d") / time.strftime("%H-%M-%S")


def preflight(experiment: Experiment, info: TargetInfo) -> None:
    """Lets every component refuse the target, and checks what can be checked, before anything expensive."""
    refuse_infinite(experiment.config)
    for component in components(experiment).values():
        component.check(info)
    refuse_draw(experiment.arm, info)
    read = getattr(experiment.selector, "attributor", "") if reads_scores(experiment) else ""
    if read and read not in experiment.attributors:
        panel = list(experiment.attributors)
        raise ConfigError(
            f"selector.attributor = '{read}': no such attributor is in the panel{did_you_mean(read, panel)} "
            f"There is {', '.join(panel)}; add it with attributor={'+'.join([*panel, read])}"
        )
    settings = experiment.settings.ledger
    mode = settings.mode
    if mode is LedgerMode.estimate:
        raise ConfigError(
            "ledger.mode=estimate: runs nothing; see m3i.engine.cost.estimate, or 'm3i cost' on the command line"
        )
    if mode is not LedgerMode.replay:
        for component in components(experiment).values():
            if isinstance(component, RemoteModel):
                component.require_key()
                required_price(component.provider_name, component.model, settings)
    check_trace_file(experiment)


def refuse_draw(arm: Arm, info: TargetInfo) -> None:
    """Raises ConfigError for a draw that no set of the target's layers can have, whatever the selector takes.

    How many sets there are is known once the layers are selected (m3i.config.arms.select_for); no choice of k of n layers has
    more sets than n choose n/2.
    """
    most = math.comb(info.n_layers, info.n_layers // 2)
    if arm.draw is not None and arm.draw >= most:
        raise ConfigError(
            f"arm = {arm.name}: {info.name} has {info.n_layers} layers, of which no more than {most} sets of one size "
            f"can be drawn, numbered from 0"
        )


def check_trace_file(experiment: Experiment) -> None:
    """Raises ConfigError where the user's own traces are not there."""
    file = experiment.settings.trace.file
    if file is not None and not Path(file).is_file():
        raise ConfigError(f"trace.file = {file!r}: there is no such file")


def refuse_infinite(value: Any, path: str = "") -> None:
    """Raises ConfigError for an option that is infinite or no number: no result.json could hold it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        refuse_infinite(item, f"{path}.{name}" if path else str(name))
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path} = {value}: expected a finite number")


def read_sources(experiment: Experiment, registry: Registry) -> None:
    """Hashes every source that will be in a key now, while it is what Python has loaded or will load."""
    core_sources()
    for place, component in components(experiment).items():
        registry.entry_of(place.partition(".")[0], component).source_hash()


def reads_scores(experiment: Experiment) -> bool:
    """Whether the selector has the option `attributor`, the core's word for the score that a selector reads."""
    return any(f.name == "attributor" for f in dataclasses.fields(cast(Any, experiment.selector)))


def components(experiment: Experiment) -> Mapping[str, Component]:
    """Every component by its place in the config."""
    panels: dict[str, Mapping[str, Any]] = {
        "observer": experiment.observers,
        "attributor": experiment.attributors,
        "judge": experiment.judges,
        "tracker": experiment.trackers,
    }
    single: dict[str, Any] = {
        "target": experiment.target,
        "problems": experiment.problems,
        "selector": experiment.selector,
        "trainer": experiment.trainer,
        "exporter": experiment.exporter,
    }
    return {**single, **{f"{group}.{a}": c for group, panel in panels.items() for a, c in panel.items()}}


def component_table(lab: Lab) -> list[dict[str, str]]:
    """Name, distribution, version and source of the core and of every component used, for the record."""
    core = hash_contents(sorted(core_sources().items()))
    table = [{"place": "core", "name": "m3i", "distribution": "m3i", "version": m3i.__version__, "source": core[:16]}]
    for place, component in components(lab.experiment).items():
        entry = lab.registry.entry_of(place.partition(".")[0], component)
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


def asks_remotely(experiment: Experiment) -> bool:
    """Whether any component's results come from the ledger."""
    return any(component.uses_ledger for component in components(experiment).values())


def ledger_path(experiment: Experiment) -> Path:
    """The ledger's file when `ledger.path` is unset: in the store."""
    return store_root(experiment) / "ledger.sqlite"


def store_root(experiment: Experiment) -> Path:
    """Folder of the store: `store.root`, else the user's cache folder."""
    root = experiment.settings.store.root
    return Path(root) if root else Path(platformdirs.user_cache_dir("m3i"))
