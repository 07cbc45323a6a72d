"""From a problem source to traces and their telemetry."""

from __future__ import annotations

from pathlib import Path

from m3i.artifacts import ProblemSet, Telemetry, Traces
from m3i.component import plain
from m3i.interfaces import Tick
from m3i.stages.context import Lab
from m3i.stages.sources import TORCH
from m3i.store.store import file_hash


def problems(lab: Lab) -> ProblemSet:
    """Train and held-out problems, disjoint in canonical form."""
    source = lab.experiment.problems

    def work(folder: Path, tick: Tick) -> ProblemSet:
        from m3i.problems.canonical import make_problem_set

        return make_problem_set(source)

    return lab.make(
        ProblemSet,
        "problems",
        work,
        component=("problems", source),
        core=("problem_set", "answer_text", "json_lines"),
        made=lambda a: f"{len(a.train)} train, {len(a.held_out)} held-out",
    )


def trace(lab: Lab, drawn: ProblemSet) -> Traces:
    """The target's own reasoning on the train problems, or the user's traces of it."""
    source, options = lab.experiment.problems, lab.experiment.settings.trace

    def work(folder: Path, tick: Tick) -> Traces:
        from m3i.models.generation import read_traces, sample_traces

        lab.check_room()
        loaded = lab.session.loaded
        if options.file is not None:
            return read_traces(Path(options.file), loaded, drawn.train, source)
        return sample_traces(
            loaded,
            drawn.train,
            source,
            samples=options.samples,
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
            batch_size=options.batch_size,
            seed=options.seed,
            tick=tick,
        )

    settings = plain(options) if options.file is None else {"file_sha256": file_hash(Path(options.file))}
    return lab.make(
        Traces,
        "trace",
        work,
        core=("generation", "batching", "json_lines"),
        settings=settings,
        inputs={"target": lab.target_id, "problems": drawn.id},
        libraries=TORCH,
        made=lambda a: f"{len(a.traces)} traces, {sum(t.correct for t in a.traces)} right",
    )


def telemetry(lab: Lab, traces: Traces) -> Telemetry:
    """What every layer does at every token of a sample of traces."""
    options = lab.experiment.settings.telemetry

    def work(folder: Path, tick: Tick) -> Telemetry:
        from m3i.stages.telemetry import measure_telemetry

        return measure_telemetry(
            lab.session.loaded, traces.traces, max_traces=options.max_traces, batch_size=options.batch_size, tick=tick
        )

    return lab.make(
        Telemetry,
        "telemetry",
        work,
        core=("telemetry", "batching"),
        settings=plain(options),
        inputs={"target": lab.target_id, "traces": traces.id},
        libraries=TORCH,
        made=lambda a: f"{len(a.trace_ids)} traces, {a.starts[-1]} tokens x {a.lens_rank_LS.shape[0]} layers",
    )
