"""The stages of an experiment, one function each: what it needs, what its result depends on, what it makes.

Heavy modules are imported where a stage does its work, so that a run answered from the store
imports none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from m3i.arms import ArmKind
from m3i.artifacts import (
    Adapter,
    Answers,
    Audit,
    BaseModel,
    Contrasts,
    Export,
    LayerScores,
    LayerSelection,
    PreferencePairs,
    ProblemSet,
    ReferenceLogprobs,
    Telemetry,
    Trace,
    Traces,
    Verdicts,
)
from m3i.component import plain
from m3i.interfaces import (
    AttributionRequest,
    Attributor,
    AuditRequest,
    ExportRequest,
    Judge,
    Observer,
    SelectionRequest,
    Tick,
    TrainRequest,
)
from m3i.lab import Lab, run_async
from m3i.store import file_hash

TORCH = ("torch", "transformers", "tokenizers")
EXTRA = {ArmKind.ATTRIBUTED: 0, ArmKind.SHUFFLED: 2}
"""Stages of an arm beyond those of every run; 1 for the others."""
RUNTIME = ("llamacpp", "llamacpp_worker", "llamacpp_sampling", "llamacpp_wire")
"""Modules of the core that run llama.cpp."""
LANGUAGE_MODELS = (
    "llm.audit",
    "llm.calls",
    "llm.digest",
    "llm.fields",
    "llm.judge",
    "llm.models",
    "llm.observer",
    "llm.panel",
    "llm.remote",
    "llm.request",
    "llm.retry_after",
    "llm.schema",
    "llm.sdk",
    "llm.text_model",
    "llm.verdict",
)
"""Modules of the core that observers and judges with a language model stand on."""


def problems(lab: Lab) -> ProblemSet:
    """Train and held-out problems, disjoint in canonical form."""
    source = lab.experiment.problems

    def work(folder: Path, tick: Tick) -> ProblemSet:
        from m3i.problem_set import make_problem_set

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
        from m3i.generation import read_traces, sample_traces

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
        from m3i.telemetry import measure_telemetry

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


def observe(lab: Lab, alias: str, observer: Observer, drawn: ProblemSet, traces: Traces, measured: Telemetry) -> Audit:
    """One observer's audit of every trace, each alone."""
    by_id = {p.id: p for p in drawn.train}

    def work(folder: Path, tick: Tick) -> Audit:
        from m3i.spans import checked_audit

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
        from m3i.contrasts import build_contrasts

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
        from m3i.layer_scores import aggregate

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
        from m3i.arms import select_for

        return select_for(own, attributed, lab.session.info)

    return lab.make(
        LayerSelection,
        "arm",
        work,
        label=own.name,
        core=("arms", "layer_draws"),
        settings={"arm": own.name},
        inputs={"target": lab.target_id, "selection": attributed.id},
        made=lambda a: f"layers {list(a.layers)}",
    )


def pairs(lab: Lab, drawn: ProblemSet, traces: Traces) -> PreferencePairs:
    """Preference pairs of one prompt each, from verified traces."""
    options = lab.experiment.settings.pairs

    def work(folder: Path, tick: Tick) -> PreferencePairs:
        from m3i.pairs import build_pairs

        loaded = lab.session.loaded
        return build_pairs(
            drawn.train,
            traces.traces,
            lab.experiment.problems,
            loaded.encode_completion,
            end_id=loaded.stop_ids[0],
            per_problem=options.per_problem,
            corrected=options.corrected,
            max_length=options.max_length,
            overlong=options.overlong,
            truncated=options.truncated,
            at_most=options.at_most,
            seed=options.seed,
        )

    return lab.make(
        PreferencePairs,
        "pairs",
        work,
        core=("pairs",),
        settings=plain(options),
        inputs={"target": lab.target_id, "problems": drawn.id, "traces": traces.id},
        made=lambda a: f"{len(a.pairs)} pairs",
    )


def reference(lab: Lab, chosen: PreferencePairs) -> ReferenceLogprobs:
    """The untouched model's log-probabilities of every pair: once per base model and pairs, not per adapter."""
    options = lab.experiment.settings.reference

    def work(folder: Path, tick: Tick) -> ReferenceLogprobs:
        from m3i.reference import reference_logprobs

        return reference_logprobs(lab.session.loaded, chosen, batch_size=options.batch_size, tick=tick)

    return lab.make(
        ReferenceLogprobs,
        "reference",
        work,
        core=("reference", "generation", "batching", "json_lines"),
        settings=plain(options),
        inputs={"target": lab.target_id, "pairs": chosen.id},
        libraries=TORCH,
        made=lambda a: f"{2 * len(a.chosen_P)} completions",
    )


def shuffle(lab: Lab, chosen: PreferencePairs, known: ReferenceLogprobs) -> tuple[PreferencePairs, ReferenceLogprobs]:
    """In the shuffled arm half of the pairs swapped, another half for each training seed; elsewhere the pairs."""
    if lab.experiment.arm.kind is not ArmKind.SHUFFLED:
        return chosen, known
    seed = lab.experiment.settings.seed

    def swap_pairs(folder: Path, tick: Tick) -> PreferencePairs:
        from m3i.shuffle import shuffle_pairs

        return shuffle_pairs(chosen, seed)

    def swap_reference(folder: Path, tick: Tick) -> ReferenceLogprobs:
        from m3i.shuffle import shuffle_reference

        return shuffle_reference(known, seed)

    swapped = lab.make(
        PreferencePairs,
        "shuffle",
        swap_pairs,
        label="pairs",
        core=("shuffle", "pairs"),
        settings={"seed": seed, "of": "pairs"},
        inputs={"pairs": chosen.id},
        made=lambda a: f"{a.counts.get('pairs: swapped', 0)} of {len(a.pairs)} pairs swapped",
    )
    moved = lab.make(
        ReferenceLogprobs,
        "shuffle",
        swap_reference,
        label="reference",
        core=("shuffle", "pairs"),
        settings={"seed": seed, "of": "reference"},
        inputs={"reference": known.id},
        made=lambda a: f"{2 * len(a.chosen_P)} completions",
    )
    return swapped, moved


def train(lab: Lab, selection: LayerSelection, chosen: PreferencePairs, known: ReferenceLogprobs) -> Adapter:
    """The adapter. Two selectors that pick the same layers share it."""
    trainer = lab.experiment.trainer

    def work(folder: Path, tick: Tick) -> Adapter:
        return trainer.train(
            TrainRequest(
                target=lab.session,
                selection=selection,
                pairs=chosen,
                reference=known,
                seed=lab.experiment.settings.seed,
                folder=folder,
                tick=tick,
            )
        )

    return lab.make(
        Adapter,
        "train",
        work,
        component=("trainer", trainer),
        settings={
            "layers": selection.layers,
            "zero_update": selection.zero_update,
            "seed": lab.experiment.settings.seed,
        },
        inputs={"target": lab.target_id, "pairs": chosen.id, "reference": known.id},
        libraries=TORCH,
        made=lambda a: f"{a.certificate.n_trainable:,} parameters in {len(a.certificate.tensors)} tensors",
    )


def base(lab: Lab, traces: Traces) -> BaseModel:
    """The untouched model as GGUF, with its parity to transformers: one for all arms."""
    exporter = lab.experiment.exporter

    def work(folder: Path, tick: Tick) -> BaseModel:
        return exporter.export_base(lab.session, traces.traces, folder)

    entry = lab.registry.entry_of("exporter", exporter)
    return lab.make(
        BaseModel,
        "base",
        work,
        core=RUNTIME,
        settings={
            "exporter": {"distribution": entry.distribution, "version": entry.version, "source": entry.source_hash()},
            "options": plain(dict(exporter.base_fields())),
        },
        inputs={"target": lab.target_id, "traces": traces.id},
        libraries=(*TORCH, *type(exporter).libraries),
        made=lambda a: "parity " + ", ".join(f"{k} {v:.3g}" for k, v in list(a.parity.items())[:2]),
    )


def export(
    lab: Lab, untouched: BaseModel, adapter: Adapter, selection: LayerSelection, probes: Sequence[Trace]
) -> Export:
    """The tuned model for llama.cpp, with the certificate that the update arrived."""
    exporter = lab.experiment.exporter

    def work(folder: Path, tick: Tick) -> Export:
        return exporter.export(
            ExportRequest(
                target=lab.session,
                base=untouched,
                adapter=adapter,
                selection=selection,
                probes=probes,
                folder=folder,
                tick=tick,
            )
        )

    return lab.make(
        Export,
        "export",
        work,
        component=("exporter", exporter),
        core=RUNTIME,
        inputs={"target": lab.target_id, "base": untouched.id, "adapter": adapter.id},
        libraries=TORCH,
        made=lambda a: (
            f"{a.certificate.live_share:.1%} of the adapter live"
            + (
                " (vacuous: sham)"
                if a.certificate.vacuous
                else f", joint error {a.certificate.together.relative_error:.1e}"
            )
        ),
    )


def answer(lab: Lab, drawn: ProblemSet, untouched: BaseModel, tuned: Export | None) -> Answers:
    """Held-out answers of the base (`tuned` None) or the tuned model under llama.cpp."""
    options = lab.experiment.settings.evaluate

    def work(folder: Path, tick: Tick) -> Answers:
        from m3i.evaluation import answer_held_out

        loaded = lab.session.loaded
        model = untouched.file()
        adapter = None
        if tuned is not None and tuned.model_path is not None:
            model = tuned.folder / tuned.model_path
        if tuned is not None and tuned.adapter_path is not None:
            adapter = tuned.folder / tuned.adapter_path
        return answer_held_out(
            model=model,
            adapter=adapter,
            problems=drawn.held_out,
            source=lab.experiment.problems,
            encode=loaded.encode_prompt,
            decode=loaded.decode,
            stop_ids=loaded.stop_ids,
            seeds=options.seeds,
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
            threads=options.threads,
            n_ctx=options.n_ctx,
            tick=tick,
        )

    return lab.make(
        Answers,
        "answer",
        work,
        label="base" if tuned is None else "tuned",
        core=("evaluation", *RUNTIME),
        settings=plain(options),
        inputs={
            "target": lab.target_id,
            "problems": drawn.id,
            "base": untouched.id,
            **({} if tuned is None else {"export": tuned.id}),
        },
        libraries=("llama-cpp-python", "tokenizers"),
        made=lambda a: f"{sum(x.correct for x in a.answers)} of {len(a.answers)} right",
    )


def judge(lab: Lab, alias: str, component: Judge, drawn: ProblemSet, before: Answers, after: Answers) -> Verdicts:
    """One judge's verdicts, each comparison in both orders."""
    options = lab.experiment.settings.judging
    reads: bool = cast(Any, component).reads_with_model

    def work(folder: Path, tick: Tick) -> Verdicts:
        from m3i.judging import judge_answers

        return run_async(
            judge_answers(
                name=alias,
                judge=component,
                problems=drawn.held_out,
                base=before.answers,
                tuned=after.answers,
                source=lab.experiment.problems,
                ledger=lab.ledger,
                seed=options.seed,
                n_canaries=options.canaries if reads else 0,
                tick=tick,
            )
        )

    return lab.make(
        Verdicts,
        "judge",
        work,
        label=alias,
        component=("judge", component),
        core=("judging", "injections", "spans", *LANGUAGE_MODELS, *RUNTIME),
        settings={
            "alias": alias,
            "seed": options.seed,
            **({"canaries": options.canaries} if reads else {}),
            **lab.recording(component),
        },
        inputs={"problems": drawn.id, "base answers": before.id, "tuned answers": after.id},
        made=lambda a: ", ".join(f"{n} {o}" for o, n in _outcomes(a).items()),
    )


def _outcomes(verdicts: Verdicts) -> dict[str, int]:
    counts: dict[str, int] = {}
    for verdict in verdicts.verdicts:
        counts[verdict.outcome.value] = counts.get(verdict.outcome.value, 0) + 1
    return counts
