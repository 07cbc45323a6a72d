"""The arm stage: the layers that this arm trains, either the attributed ones or a control's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import LayerSelection
from m3i.config.arms import ArmKind, select_for
from m3i.interfaces import Tick

if TYPE_CHECKING:
    from m3i.stages.context import RunContext


def run(context: RunContext, attributed: LayerSelection) -> LayerSelection:
    """Returns the layers of this arm: the attributed ones, or those that a control trains instead."""
    arm = context.experiment.arm
    if arm.kind in (ArmKind.ATTRIBUTED, ArmKind.SHUFFLED):
        return attributed

    def work(folder: Path, tick: Tick) -> LayerSelection:
        return select_for(arm, attributed, context.session.info)

    return context.make(
        LayerSelection,
        "arm",
        work,
        label=arm.name,
        settings={"arm": arm.name} | ({} if arm.draw is None else {"draw_seed": arm.draw_seed}),
        inputs={"target": context.target_id, "selection": attributed.id},
        made=lambda a: f"layers {list(a.layers)}",
    )
