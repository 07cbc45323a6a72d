"""What would settle an open question, with commands that repeat this run's own overrides."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from m3i.wording.arm import CONTROL_SELECTORS, is_attributed, selector_name
from m3i.wording.formats import percent
from m3i.wording.next_steps.step import step

N_CONTROLS = 19
"""Random arms beside the attributed one below which the smallest possible p of a randomization test is above 0.05."""


def next_steps(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """What would settle the question; `command` is empty where one word does not do it."""
    judge = next(iter(result["judges"].values()))
    steps = []
    if result["verdict"]["kind"] in ("undecided", "none") and not result["layers"]["zero_update"]:
        steps.append(more_problems(judge["power"]))
    if not result["layers"]["zero_update"]:
        steps.append(controls(result))
        steps.append(
            step(
                "More training seeds",
                "The same layers from other adapter initialisations and data orders.",
                command(result, "seed=0,1,2", without=("seed",), sweep=True),
            )
        )
    if result["accuracy"]["n_seeds"] == 1:
        steps.append(
            step(
                "More generation seeds",
                "Each held-out problem answered several times; the problem stays the unit of every test.",
                command(result, "evaluate.seeds=[0,1,2]", without=("evaluate.seeds",)),
            )
        )
    return steps


def controls(result: Mapping[str, Any]) -> dict[str, str]:
    """The sweep with its random-layer arms for an attributed arm, the attributed arm for any other."""
    if is_attributed(result):
        return step(
            "Random-layer control",
            f"Train as many randomly drawn layers on the same pairs, over training seeds; everything up to the "
            f"selection comes from the store. At least {N_CONTROLS} distinct random arms are needed before the "
            f"smallest possible p of that comparison is 0.05.",
            command(result, "+sweep=control", without=("seed", "arm"), sweep=True),
        )
    words: tuple[str, ...] = ("arm=attributed",)
    if selector_name(result) in CONTROL_SELECTORS:
        words = ("selector=attribution", f"selector.k={len(result['layers']['selected'])}", *words)
    return step(
        "The attributed arm",
        "This arm is a control. It says something about attribution once the attributed layers are trained on the same "
        "pairs.",
        command(result, *words),
    )


def command(result: Mapping[str, Any], *words: str, without: tuple[str, ...] = (), sweep: bool = False) -> str:
    """The run's command line with other words; those that they replace, and those in `without`, go."""
    replaced = {word.partition("=")[0] for word in words} | set(without)
    if any(word.startswith("selector=") for word in words):
        replaced |= {"selector.layers", "selector.k", "selector.seed", "selector.exclude"}
    kept = [word for word in result["overrides"] if word.partition("=")[0].lstrip("+~") not in replaced]
    kept = [word for word in kept if not word.lstrip("+~").startswith("hydra")]
    return shlex.join(["python", "-m", "m3i", *(["-m"] if sweep else []), *kept, *words])


def more_problems(power: Mapping[str, Any]) -> dict[str, str]:
    """How many held-out problems it would take."""
    needed = power["needed"]
    parts = []
    if needed["reference"] is not None:
        parts.append(
            f"a true split of 60 to 40 among decided problems takes {needed['reference']:,} problems at this share of "
            "ties"
        )
    if needed["observed"] is not None:
        parts.append(f"an effect of exactly the size seen here takes {needed['observed']:,}")
    text = "; ".join(parts) or "with every problem undecided, no number can be named"
    had = f"({percent(power['power'])} power; this run had {power['n_problems']:,})"
    return step("More held-out problems", f"{text[0].upper()}{text[1:]} {had}.")
