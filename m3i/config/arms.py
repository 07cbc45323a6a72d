"""The arms of an experiment: the attributed layers, and the controls they are compared with.

The config names an arm (`arm=random-3`) without changing the selector: the selector's layers are
the attributed set, and every other arm is derived from that set here. Controls therefore match it
in number of layers, candidates and strata for every selector, third-party ones included.
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
    """Another set from the population that the attributed set could have come from: the controls of the test."""
    EXCLUDING = "excluding"
    """A random set that contains no attributed layer: a contrast, without a p value (docs/verdict.md)."""
    ALL = "all"
    """Every candidate layer."""
    SHUFFLED = "shuffled"
    """The attributed layers, on pairs of which half have chosen and rejected swapped: training without preference."""
    SHAM = "sham"
    """The attributed layers with a zero update, which must change nothing."""


DERIVED = (ArmKind.ALL, ArmKind.SHUFFLED, ArmKind.SHAM)
"""Kinds of which there is one beside the attributed arm."""
DRAWN = (ArmKind.RANDOM, ArmKind.EXCLUDING)
"""Kinds with several arms, told apart by the number of the draw."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm of an experiment."""

    kind: ArmKind
    draw: int | None = None
    """Number of the draw, from 0; None for kinds with a single arm."""
    draw_seed: int = 0
    """Seed of the random order in which draws are numbered."""

    @property
    def name(self) -> str:
        """The name as in the config, e.g. `random-3` or `sham`."""
        return self.kind.value if self.draw is None else f"{self.kind.value}-{self.draw}"


def parse_arm(name: str, draw_seed: int = 0) -> Arm:
    """Returns the arm with the given name. Raises ConfigError that lists the arms."""
    kind, dash, number = name.partition("-")
    known = {k.value: k for k in ArmKind}
    drawn = [k.value for k in DRAWN]
    if kind in drawn and dash and number.isascii() and number.isdigit() and str(int(number)) == number:
        return Arm(kind=known[kind], draw=int(number), draw_seed=draw_seed)
    if kind in known and kind not in drawn and not dash:
        return Arm(kind=known[kind])
    names = [f"{k}-0" if k in drawn else k for k in known]
    listed = ", ".join(f"{k}-N (N = 0, 1, ...)" if k in drawn else k for k in known)
    raise ConfigError(f"arm = {name!r}: there is no such arm{did_you_mean(name, names)} Available: {listed}")


def population(kind: ArmKind, attributed: LayerSelection, info: TargetInfo, seed: int = 0) -> Population:
    """Returns the layer sets that an arm is drawn from.

    Each set holds as many layers of every stratum as the attributed set: in a mixture-of-experts model, dense and
    routed layers differ in their trainable parameters, so a control with another mix would train a different number.

    Args:
        kind: `random`: all such sets of candidates except the attributed one. `excluding`: those without its layers.
        attributed: The selector's set with its candidates.
        info: The target, which says which layers are dense.
        seed: Seed of the order of the draws.
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
    """Returns the layers that an arm trains.

    Raises:
        ConfigError: The number of the draw exceeds the number of distinct sets; the message says how many there are.
    """
    candidates = attributed.candidates
    if arm.kind in DRAWN:
        assert arm.draw is not None
        drawn_from = population(arm.kind, attributed, info, arm.draw_seed)
        if arm.draw >= drawn_from.n_sets:
            raise ConfigError(
                f"arm = {arm.name}: besides the attributed layers {list(attributed.layers)} there are "
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
    """Returns the section `arm` of result.json: which arm a run is, and what it is derived from.

    Args:
        arm: The arm.
        attributed: The selector's layers.
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
