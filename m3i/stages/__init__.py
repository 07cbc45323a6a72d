"""The stages of an experiment, one function each: what it needs, what its result depends on, what it makes.

The modules, in the order of the data: tracing, attribution, training, judgment. Heavy modules are
imported where a stage does its work, so that a run answered from the store imports none of them.
"""

from m3i.config.arms import ArmKind
from m3i.stages.attribution import arm, attribute, contrast, observe, select
from m3i.stages.judgment import answer, base, export, judge
from m3i.stages.tracing import problems, telemetry, trace
from m3i.stages.training import pairs, reference, shuffle, train

EXTRA = {ArmKind.ATTRIBUTED: 0, ArmKind.SHUFFLED: 2}
"""Stages of an arm beyond those of every run; 1 for the others."""

__all__ = [
    "EXTRA",
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
