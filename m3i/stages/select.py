"""The select stage: the layers to train, by the selector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import LayerScores, LayerSelection
from m3i.interfaces import SelectionRequest, Tick

if TYPE_CHECKING:
    from m3i.stages.context import RunContext


def run(context: RunContext, scores: Mapping[str, LayerScores]) -> LayerSelection:
    """The layers to train. From here on an arm differs from its siblings."""
    selector = context.experiment.selector

    def work(folder: Path, tick: Tick) -> LayerSelection:
        return selector.select(SelectionRequest(info=context.session.info, scores=scores))

    return context.make(
        LayerSelection,
        "select",
        work,
        component=("selector", selector),
        # A selector may read the first score of the panel, and the names of inputs are sorted in the key.
        settings={"panel": list(scores)},
        inputs={"target": context.target_id, **{f"scores {a}": s.id for a, s in scores.items()}},
        made=lambda a: f"layers {list(a.layers)}",
    )
