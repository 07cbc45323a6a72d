"""What would settle a run's open questions, with commands that keep the run's own overrides."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from m3i.wording.arm import CONTROL_SELECTORS, is_attributed, selector_name
from m3i.wording.formats import percent
from m3i.wording.next_steps.step import step

N_CONTROLS = 19
"""Fewest random arms with which a randomization test can reach p = 0.05."""


def next_steps(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """What would settle the question; `command` is empty where no single command does it."""
    judge = next(iter(result["judges"].values()))
    steps = []
    if result["verdict"]["kind"] in ("undecided", "none") and not result["layers"]["zero_update"]:
        steps.append(more_problems(judge["power"]))
    if not result["layers"]["zero_update"]:
        steps.append(controls(result))
        steps.append(
            step(
                "More training seeds",
                "Train the same layers with other adapter initialisations and data orders.",
                command(result, "seed=0,1,2", without=("seed",), sweep=True),
            )
        )
    if result["accuracy"]["n_seeds"] == 1:
        steps.append(
            step(
                "More generation seeds",
                "Answer each held-out problem several times; the problem remains the unit of every test.",
                command(result, "evaluate.seeds=[0,1,2]", without=("evaluate.seeds",)),
            )
        )
    return steps


def controls(result: Mapping[str, Any]) -> dict[str, str]:
    """The sweep with random-layer arms if this is an attributed arm, else the attributed arm."""
    if is_attributed(result):
        return step(
            "Random-layer control",
            f"Train the same number of randomly drawn layers on the same pairs, at several training seeds; everything "
            f"up to the selection comes from the store. The comparison can reach p = 0.05 only with at least "
            f"{N_CONTROLS} distinct random arms.",
            command(result, "+sweep=control", without=("seed", "arm"), sweep=True),
        )
    words: tuple[str, ...] = ("arm=attributed",)
    if selector_name(result) in CONTROL_SELECTORS:
        words = ("selector=attribution", f"selector.k={len(result['layers']['selected'])}", *words)
    return step(
        "The attributed arm",
        "This arm is a control. It says something about attribution only once the attributed layers are trained on the "
        "same pairs.",
        command(result, *words),
    )


def command(result: Mapping[str, Any], *words: str, without: tuple[str, ...] = (), sweep: bool = False) -> str:
    """The run's command line with `words` added; overrides that they replace, and those in `without`, are dropped."""
    replaced = {word.partition("=")[0] for word in words} | set(without)
    if any(word.startswith("selector=") for word in words):
        replaced |= {"selector.layers", "selector.k", "selector.seed", "selector.exclude"}
    kept = [word for word in result["overrides"] if word.partition("=")[0].lstrip("+~") not in replaced]
    kept = [word for word in kept if not word.lstrip("+~").startswith("hydra")]
    return shlex.join(["python", "-m", "m3i", *(["-m"] if sweep else []), *kept, *words])


def more_problems(power: Mapping[str, Any]) -> dict[str, str]:
    """How many held-out problems it would take to detect an effect."""
    needed = power["needed"]
    parts = []
    if needed["reference"] is not None:
        parts.append(
            f"detecting a true 60-to-40 split of the decided problems takes {needed['reference']:,} problems at this "
            "share of ties"
        )
    if needed["observed"] is not None:
        parts.append(f"detecting an effect of exactly the size seen here takes {needed['observed']:,}")
    text = "; ".join(parts) or "with every problem undecided, the number needed cannot be estimated"
    had = f"({percent(power['power'])} power; this run had {power['n_problems']:,})"
    return step("More held-out problems", f"{text[0].upper()}{text[1:]} {had}.")
