"""Caveats by rule: each rule reads the result's own numbers and speaks only when they call for it.

A rule is a function of the result that yields caveats, each with a `name`, a `title`, a `text` and a `weight`: `major`
if it limits the headline, `minor` if only a careful reader needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from m3i.wording.caveats import evidence, layers, making, readers
from m3i.wording.caveats.caveat import Caveat, Result

__all__ = ["RULES", "caveats"]

RULES: tuple[Callable[[Result], Iterator[Caveat]], ...] = (
    evidence.sample_size,
    evidence.one_arm,
    evidence.capability,
    evidence.answers,
    evidence.judges,
    readers.families,
    readers.canaries,
    readers.habits,
    making.training,
    making.export,
    layers.attribution,
    layers.observers,
    readers.shared_mistakes,
    readers.calls,
)


def caveats(result: Result) -> list[Caveat]:
    """All caveats of a run: major ones first, otherwise in the order of the rules."""
    found = [caveat for rule in RULES for caveat in rule(result)]
    return sorted(found, key=lambda c: c["weight"] != "major")
