"""The select stage: the layers to train, as the selector picks them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import LayerScores, LayerSelection
from m3i.interfaces import SelectionRequest, Tick

if TYPE_CHECKING:
    from m3i.stages.context import RunContext


def run(context: RunContext, scores: Mapping[str, LayerScores]) -> LayerSelection:
    """Returns the layers to train. From here on, the arms of an experiment differ."""
    selector = context.experiment.selector

    def work(folder: Path, tick: Tick) -> LayerSelection:
        return selector.select(SelectionRequest(info=context.session.info, scores=scores))

    return context.make(
        LayerSelection,
        "select",
        work,
        component=("selector", selector),
        # The panel's order matters: a selector may read the first scores only, and the key sorts its inputs by name.
        settings={"panel": list(scores)},
        inputs={"target": context.target_id, **{f"scores {a}": s.id for a, s in scores.items()}},
        made=lambda a: f"layers {list(a.layers)}",
    )
