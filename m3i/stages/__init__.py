"""The stages of an experiment: one module per stage, in the order of `m3i.engine.run.run_stages`.

Each module has a function `run(context, ...)` that states what the stage needs, what its result depends on and what it
makes; the work itself follows below it. Torch and llama.cpp are imported inside the functions that use them, so that a
run answered from the store imports neither.
"""

from m3i.stages import (
    answer,
    arm,
    attribute,
    base,
    contrast,
    export,
    judge,
    observe,
    pairs,
    problems,
    reference,
    select,
    shuffle,
    telemetry,
    trace,
    train,
)

__all__ = [
    "answer",
    "arm",
    "attribute",
    "base",
    "contrast",
    "export",
    "judge",
    "observe",
    "pairs",
    "problems",
    "reference",
    "select",
    "shuffle",
    "telemetry",
    "trace",
    "train",
]
