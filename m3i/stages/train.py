"""The train stage: the adapter on the selected layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import Adapter, LayerSelection, PreferencePairs, ReferenceLogprobs
from m3i.interfaces import Tick, TrainRequest
from m3i.stages.libraries import TORCH

if TYPE_CHECKING:
    from m3i.stages.context import RunContext


def run(
    context: RunContext, selection: LayerSelection, pairs: PreferencePairs, reference: ReferenceLogprobs
) -> Adapter:
    """Returns the adapter. Selectors that pick the same layers share it."""
    trainer, seed = context.experiment.trainer, context.experiment.settings.seed

    def work(folder: Path, tick: Tick) -> Adapter:
        return trainer.train(
            TrainRequest(
                target=context.session,
                selection=selection,
                pairs=pairs,
                reference=reference,
                seed=seed,
                folder=folder,
                tick=tick,
            )
        )

    return context.make(
        Adapter,
        "train",
        work,
        component=("trainer", trainer),
        settings={"layers": selection.layers, "zero_update": selection.zero_update, "seed": seed},
        inputs={"target": context.target_id, "pairs": pairs.id, "reference": reference.id},
        libraries=TORCH,
        made=lambda a: f"{a.certificate.n_trainable:,} parameters in {len(a.certificate.tensors)} tensors",
    )
