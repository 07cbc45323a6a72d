"""What a sweep's page derives from `sweep.json` for its figures and tables: positions, ranges, names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from m3i.statistics.randomization import TIE
from m3i.wording.sweep.numbers import magnitude

LANES = (
    ("excluding", "Excluding"),
    ("all", "All layers"),
    ("shuffled", "Shuffled pairs"),
    ("sham", "Sham"),
)
"""Kinds of arms outside the test, and what the page calls them."""
SOURCES = {
    "problem": "problems differ",
    "generation": "answers to one problem differ",
    "draw": "layer sets differ",
    "training": "training runs of one set differ",
    "problem x draw": "sets differ on single problems",
    "generation x draw": "sets differ on single answers",
    "problem x training": "training runs differ on single problems",
    "residual": "everything else",
}
"""Components of variance in words."""


def lanes(endpoint: Mapping[str, Any]) -> list[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Label and arms of each row of the headline figure below the attributed arm and its controls."""
    others = endpoint["others"]
    rows = [(label, [p for p in others if p["kind"] == kind and p["t"] is not None]) for kind, label in LANES]
    untested = [p for p in others if p["kind"] == "random" and p["t"] is not None]
    return [(label, places) for label, places in [("Random, not tested", untested), *rows] if places]


def edge(endpoint: Mapping[str, Any]) -> float | None:
    """T of the control that the attributed arm must pass for p ≤ alpha; None if the test is two-sided or none suffices.

    p = (1 + controls at least as extreme) / (R + 1) ≤ alpha allows alpha (R + 1) − 1 of them; the next is the edge.
    """
    test = endpoint["test"]
    if test is None or test["alternative"] == "two-sided":
        return None
    places = sorted((p["t"] for p in endpoint["controls"]), reverse=test["alternative"] == "greater")
    spare = math.floor(test["alpha"] * (len(places) + 1) + TIE) - 1
    return places[spare] if 0 <= spare < len(places) else None


def layer_use(endpoint: Mapping[str, Any], n_layers: int) -> tuple[list[int], list[float | None]]:
    """For each layer, how many of the test's random arms include it, and their mean T."""
    held: list[list[float]] = [[] for _ in range(n_layers)]
    for place in endpoint["controls"]:
        for layer in place["layers"] if place["t"] is not None else ():
            held[layer].append(place["t"])
    return [len(ts) for ts in held], [sum(ts) / len(ts) if ts else None for ts in held]


def answers_by_problem(run: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Problem id → its rows in the run, one per generation seed."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in run["problems"]["rows"]:
        found.setdefault(row["problem_id"], []).append(row)
    return found


def direction(difference: float | None) -> str:
    """Filter value: whether the attributed arm does better or worse than its controls on a problem."""
    if difference is None:
        return "unknown"
    return "equal" if abs(difference) < TIE else "better" if difference > 0 else "worse"


def ranges(layers: Sequence[int]) -> str:
    """`4, 5, 8`; in longer lists, consecutive layers are joined: `1–8, 11`."""
    if len(layers) <= 4:
        return ", ".join(map(str, layers))
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs)


def about(arm: Mapping[str, Any]) -> str:
    """What an arm's name does not tell about it."""
    if arm["kind"] == "random":
        return "" if arm["tested"] else "not in the test"
    if arm["kind"] == "shuffled":
        return f"{arm['n_swapped']} of {arm['n_pairs']} pairs swapped"
    return {"excluding": "no attributed layer", "sham": "zero update"}.get(arm["kind"], "")


def part(name: str) -> str:
    """CSS class of a component of variance."""
    return "part-" + (name.replace(" ", "-") if name in SOURCES else "other")


def need(value: float | None, why: str) -> str:
    """A required number in words, or why there is none, or that no number suffices."""
    if value is not None:
        return f"{value:,}"
    return why or "no number of these alone suffices"


def power_words(value: float | None, kind: str, alternative: str) -> str:
    """The smallest difference that a test detects, on the side of its alternative: `+0.021 or more`."""
    if value is None:
        return "–"
    size = magnitude(kind, value)
    return {"greater": f"+{size} or more", "less": f"−{size} or less"}.get(alternative, f"{size} or more either way")


def equivalence_words(endpoint: Mapping[str, Any], key: str) -> str:
    """Whether equivalence is shown or, if the margin is too wide for that, whether the difference lies within it."""
    if endpoint["equivalence"]["too_wide"]:
        return (
            "within the margin" if endpoint["equivalence"][key]["equivalent"] else "not shown to be within the margin"
        )
    return "equivalent" if endpoint["equivalence"][key]["equivalent"] else "not shown to be equivalent"


def has_points(endpoint: Mapping[str, Any]) -> bool:
    """Whether an endpoint has anything to draw."""
    return endpoint["attributed"] is not None and endpoint["attributed"]["t"] is not None
