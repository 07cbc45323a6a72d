"""From an adapter to verdicts: GGUF files, held-out answers under llama.cpp, judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from m3i.artifacts import Adapter, Answers, BaseModel, Export, LayerSelection, ProblemSet, Trace, Traces, Verdicts
from m3i.component import plain
from m3i.interfaces import ExportRequest, Judge, Tick
from m3i.stages.context import Lab, run_async
from m3i.stages.sources import LANGUAGE_MODELS, RUNTIME, TORCH


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
        from m3i.stages.answer import answer_held_out

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
        from m3i.stages.judge import judge_answers

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
