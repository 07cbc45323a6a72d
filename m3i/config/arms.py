"""The arms of an experiment: the attributed layers, and what they are compared with.

An arm is named in the config (`arm=random-3`) and never changes its selector: what the selector
takes is the attributed set, and every other arm is derived from that set, here. So a control
matches it in number, candidates and strata whichever selector, third-party ones included, made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from m3i.artifacts import LayerSelection, TargetInfo
from m3i.errors import ConfigError, did_you_mean
from m3i.statistics.draws import Population, Stratum


class ArmKind(str, Enum):
    """What an arm trains."""

    ATTRIBUTED = "attributed"
    """The layers that the selector takes."""
    RANDOM = "random"
    """Another set of the population that the attributed one could have come from: the controls of the test."""
    EXCLUDING = "excluding"
    """A random set free of every attributed layer: a contrast, without a p value (docs/verdict.md)."""
    ALL = "all"
    """Every candidate layer."""
    SHUFFLED = "shuffled"
    """The attributed layers on pairs half of which have chosen and rejected swapped: training without preference."""
    SHAM = "sham"
    """The attributed layers with an update of zero: nothing may change."""


DRAWN = (ArmKind.RANDOM, ArmKind.EXCLUDING)
"""Kinds of which there are several, told apart by the number of their draw."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm by its name."""

    kind: ArmKind
    draw: int | None = None
    """Which draw, from 0; None for kinds of which there is one."""
    draw_seed: int = 0
    """Which random order of the sets the draw counts in."""

    @property
    def name(self) -> str:
        """As in the config: `random-3`, `sham`."""
        return self.kind.value if self.draw is None else f"{self.kind.value}-{self.draw}"


def parse_arm(name: str, draw_seed: int = 0) -> Arm:
    """The arm of a name. Raises ConfigError that says what there is."""
    kind, dash, number = name.partition("-")
    known = {k.value: k for k in ArmKind}
    drawn = [k.value for k in DRAWN]
    if kind in drawn and dash and number.isascii() and number.isdigit() and str(int(number)) == number:
        return Arm(kind=known[kind], draw=int(number), draw_seed=draw_seed)
    if kind in known and kind not in drawn and not dash:
        return Arm(kind=known[kind])
    names = [f"{k}-0" if k in drawn else k for k in known]
    listed = ", ".join(f"{k}-N (N = 0, 1, ...)" if k in drawn else k for k in known)
    raise ConfigError(f"arm = {name!r}: there is no such arm{did_you_mean(name, names)} There are {listed}")


def population(kind: ArmKind, attributed: LayerSelection, info: TargetInfo, seed: int = 0) -> Population:
    """The sets that a drawn arm comes from.

    Each holds as many layers of every stratum as the attributed set: dense and routed layers of a mixture-of-experts
    model have different trainable parameters, so a control that mixed them otherwise would train another number.

    Args:
        kind: `random`: every such set of the candidates but the attributed one. `excluding`: those free of its layers.
        attributed: The selector's set with its candidates.
        info: Says which layers are dense.
        seed: The order of the draws.
    """
    kept_out = attributed.layers if kind is ArmKind.EXCLUDING else ()
    strata = []
    for dense in (True, False):
        own = [layer for layer in sorted(attributed.candidates) if (layer in info.dense_layers) is dense]
        k = sum(layer in own for layer in attributed.layers)
        if k:
            strata.append(Stratum(layers=tuple(layer for layer in own if layer not in kept_out), k=k))
    without = tuple(sorted(attributed.layers)) if kind is ArmKind.RANDOM else None
    return Population(strata=tuple(strata), without=without, seed=seed)


def select_for(arm: Arm, attributed: LayerSelection, info: TargetInfo) -> LayerSelection:
    """The layers that an arm trains.

    Raises:
        ConfigError: A draw beyond the number of distinct sets; the message says how many there are.
    """
    candidates = attributed.candidates
    if arm.kind in DRAWN:
        assert arm.draw is not None
        drawn_from = population(arm.kind, attributed, info, arm.draw_seed)
        if arm.draw >= drawn_from.n_sets:
            raise ConfigError(
                f"arm = {arm.name}: beside the attributed layers {list(attributed.layers)} there are "
                f"{drawn_from.n_sets} sets to draw, numbered from 0"
            )
        layers = drawn_from.draw(arm.draw)
        what = "free of the attributed layers" if arm.kind is ArmKind.EXCLUDING else "other than the attributed one"
        return LayerSelection(
            layers=layers,
            candidates=candidates,
            reason=f"random draw {arm.draw} of {drawn_from.n_sets} sets of {len(layers)} layers {what}",
        )
    if arm.kind is ArmKind.ALL:
        return LayerSelection(
            layers=tuple(sorted(candidates)), candidates=candidates, reason=f"all {len(candidates)} candidates"
        )
    if arm.kind is ArmKind.SHAM:
        return LayerSelection(
            layers=attributed.layers,
            candidates=candidates,
            reason=f"sham: a zero update on the attributed layers ({attributed.reason})",
            zero_update=True,
        )
    return attributed


def arm_section(arm: Arm, attributed: LayerSelection, info: TargetInfo, *, seed: int) -> dict[str, Any]:
    """Which arm a run is, and what it is derived from.

    Args:
        arm: The arm.
        attributed: The selector's own set.
        info: The target.
        seed: Training seed.
    """
    drawn = arm.kind in DRAWN
    return {
        "name": arm.name,
        "kind": arm.kind.value,
        "draw": arm.draw,
        "draw_seed": arm.draw_seed if drawn else None,
        "seed": seed,
        "attributed": list(attributed.layers),
        "candidates": list(attributed.candidates),
        "n_sets": population(arm.kind if drawn else ArmKind.RANDOM, attributed, info).n_sets,
        "n_excluding_sets": population(ArmKind.EXCLUDING, attributed, info).n_sets,
    }
