"""The observe stage: one observer's audit of all traces, one trace at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import Audit, ProblemSet, Telemetry, Traces
from m3i.audits.quotes import checked_audit
from m3i.interfaces import AuditRequest, Observer, Tick
from m3i.stages.run_async import run_async

if TYPE_CHECKING:
    from m3i.stages.context import RunContext


def run(
    context: RunContext, alias: str, observer: Observer, problems: ProblemSet, traces: Traces, telemetry: Telemetry
) -> Audit:
    """Returns one observer's audit of all traces, each audited without sight of the others."""
    by_id = {p.id: p for p in problems.train}

    def work(folder: Path, tick: Tick) -> Audit:
        request = AuditRequest(
            items=[(by_id[t.problem_id], t) for t in traces.traces],
            source=context.experiment.problems,
            telemetry=telemetry,
            target=context.session,
            ledger=context.ledger,
            tick=tick,
        )
        return checked_audit(run_async(observer.audit(request)), alias, traces.traces, context.session.info.n_layers)

    return context.make(
        Audit,
        "observe",
        work,
        label=alias,
        component=("observer", observer),
        settings={"alias": alias, **context.recording(observer)},
        inputs={"problems": problems.id, "traces": traces.id, "telemetry": telemetry.id},
        made=lambda a: f"{len(a.findings)} findings in {len(a.audited)} audited traces, {len(a.missing)} missing",
    )
