"""From traces to the layers that are trained: audits, contrasts, scores, selection, arm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from m3i.artifacts import Audit, Contrasts, LayerScores, LayerSelection, ProblemSet, Telemetry, Traces
from m3i.component import plain
from m3i.config.arms import ArmKind
from m3i.interfaces import AttributionRequest, Attributor, AuditRequest, Observer, SelectionRequest, Tick
from m3i.stages.context import Lab, run_async
from m3i.stages.sources import LANGUAGE_MODELS, RUNTIME, TORCH


def observe(lab: Lab, alias: str, observer: Observer, drawn: ProblemSet, traces: Traces, measured: Telemetry) -> Audit:
    """One observer's audit of every trace, each alone."""
    by_id = {p.id: p for p in drawn.train}

    def work(folder: Path, tick: Tick) -> Audit:
        from m3i.audits.quotes import checked_audit

        request = AuditRequest(
            items=[(by_id[t.problem_id], t) for t in traces.traces],
            source=lab.experiment.problems,
            telemetry=measured,
            target=lab.session,
            ledger=lab.ledger,
            tick=tick,
        )
        return checked_audit(run_async(observer.audit(request)), alias, traces.traces, lab.session.info.n_layers)

    return lab.make(
        Audit,
        "observe",
        work,
        label=alias,
        component=("observer", observer),
        core=("spans", *LANGUAGE_MODELS, *RUNTIME),
        settings={"alias": alias, **lab.recording(observer)},
        inputs={"problems": drawn.id, "traces": traces.id, "telemetry": measured.id},
        made=lambda a: f"{len(a.findings)} findings in {len(a.audited)} audited, {len(a.missing)} missing",
    )


def contrast(lab: Lab, drawn: ProblemSet, traces: Traces, audits: Mapping[str, Audit]) -> Contrasts:
    """Each finding as a next-token question: the wrong and the right token in one context."""

    def work(folder: Path, tick: Tick) -> Contrasts:
        from m3i.stages.contrast import build_contrasts

        return build_contrasts(
            problems=drawn.train,
            traces=traces.traces,
            audits=audits,
            source=lab.experiment.problems,
            encode=lab.session.loaded.encode_completion,
            n_layers=lab.session.info.n_layers,
        )

    return lab.make(
        Contrasts,
        "contrast",
        work,
        core=("contrasts", "agreement", "spans", "statistics.holm", "statistics.reliability"),
        inputs={
            "target": lab.target_id,
            "problems": drawn.id,
            "traces": traces.id,
            **{f"audit {a}": audit.id for a, audit in audits.items()},
        },
        made=lambda a: f"{len(a.contrasts)} contrasts, {sum(a.left_out.values())} findings left out",
    )


def attribute(
    lab: Lab,
    alias: str,
    attributor: Attributor,
    traces: Traces,
    measured: Telemetry,
    audits: Mapping[str, Audit],
    contrasts: Contrasts,
) -> LayerScores:
    """One attributor's score for every layer."""
    options = lab.experiment.settings.attribution

    def work(folder: Path, tick: Tick) -> LayerScores:
        from m3i.stages.attribute import aggregate

        request = AttributionRequest(
            target=lab.session,
            contrasts=contrasts.contrasts,
            audits=audits,
            traces=traces.traces,
            telemetry=measured,
            tick=tick,
        )
        return aggregate(
            attributor.attribute(request),
            attributor=alias,
            n_layers=lab.session.info.n_layers,
            problem_of={t.id: t.problem_id for t in traces.traces},
            n_bootstrap=options.n_bootstrap,
            seed=options.seed,
        )

    return lab.make(
        LayerScores,
        "attribute",
        work,
        label=alias,
        component=("attributor", attributor),
        core=("layer_scores", "batching"),
        settings={**plain(options), "alias": alias},
        inputs={
            "target": lab.target_id,
            "traces": traces.id,
            "telemetry": measured.id,
            "contrasts": contrasts.id,
            **{f"audit {a}": audit.id for a, audit in audits.items()},
        },
        libraries=TORCH,
        made=lambda a: f"{a.joint().n_traces} traces" + (f"; top layers {_top(a, 3)}" if a.joint().n_traces else ""),
    )


def _top(scores: LayerScores, k: int) -> list[int]:
    values = scores.joint().scores
    return sorted(range(len(values)), key=lambda i: -values[i])[:k]


def select(lab: Lab, scores: Mapping[str, LayerScores]) -> LayerSelection:
    """The layers to train. From here on an arm differs from its siblings."""
    selector = lab.experiment.selector

    def work(folder: Path, tick: Tick) -> LayerSelection:
        return selector.select(SelectionRequest(info=lab.session.info, scores=scores))

    return lab.make(
        LayerSelection,
        "select",
        work,
        component=("selector", selector),
        core=("layer_draws",),
        # A selector may read the first score of the panel, and the names of inputs are sorted in the key.
        settings={"panel": list(scores)},
        inputs={"target": lab.target_id, **{f"scores {a}": s.id for a, s in scores.items()}},
        made=lambda a: f"layers {list(a.layers)}",
    )


def arm(lab: Lab, attributed: LayerSelection) -> LayerSelection:
    """The layers of this arm: the attributed ones, or those that a control takes in their place."""
    own = lab.experiment.arm
    if own.kind in (ArmKind.ATTRIBUTED, ArmKind.SHUFFLED):
        return attributed

    def work(folder: Path, tick: Tick) -> LayerSelection:
        from m3i.config.arms import select_for

        return select_for(own, attributed, lab.session.info)

    return lab.make(
        LayerSelection,
        "arm",
        work,
        label=own.name,
        core=("arms", "layer_draws"),
        settings={"arm": own.name} | ({} if own.draw is None else {"draw_seed": own.draw_seed}),
        inputs={"target": lab.target_id, "selection": attributed.id},
        made=lambda a: f"layers {list(a.layers)}",
    )
