"""From traces and layers to an adapter: pairs, reference log-probabilities, LoRA-DPO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from m3i.artifacts import Adapter, Artifact, LayerSelection, PreferencePairs, ProblemSet, ReferenceLogprobs, Traces
from m3i.component import plain
from m3i.config.arms import ArmKind
from m3i.interfaces import Tick, TrainRequest
from m3i.stages.context import Lab
from m3i.stages.sources import TORCH

A = TypeVar("A", bound=Artifact)


def pairs(lab: Lab, drawn: ProblemSet, traces: Traces) -> PreferencePairs:
    """Preference pairs of one prompt each, from verified traces."""
    options = lab.experiment.settings.pairs

    def work(folder: Path, tick: Tick) -> PreferencePairs:
        from m3i.stages.pairs import build_pairs

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
        from m3i.stages.reference import reference_logprobs

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
    from m3i.stages.shuffle import shuffle_pairs, shuffle_reference

    seed = lab.experiment.settings.seed

    def swapped(name: str, of: A, swap: Callable[[A, int], A], made: Callable[[A], str]) -> A:
        return lab.make(
            type(of),
            "shuffle",
            lambda folder, tick: swap(of, seed),
            label=name,
            core=("shuffle", "pairs"),
            settings={"seed": seed, "of": name},
            inputs={name: of.id},
            made=made,
        )

    return (
        swapped(
            "pairs",
            chosen,
            shuffle_pairs,
            lambda a: f"{a.counts.get('pairs: swapped', 0)} of {len(a.pairs)} pairs swapped",
        ),
        swapped("reference", known, shuffle_reference, lambda a: f"{2 * len(a.chosen_P)} completions"),
    )


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
