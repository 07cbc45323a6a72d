"""Numbers, layers and foreign text as a person reads them: the building blocks of every sentence and page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

ONE_VALUE = "the same for every problem, so there is no interval"
POINTS = "\u00a0points"


def layer_words(layers: list[int], n: int) -> str:
    """`layers 3, 4 and 7`, `all 12 layers`, `no layer`."""
    if not layers:
        return "no layer"
    if len(layers) == n:
        return f"all {n} layers"
    if len(layers) == 1:
        return f"layer {layers[0]}"
    return "layers " + ", ".join(map(str, layers[:-1])) + f" and {layers[-1]}"


def count(n: int, noun: str) -> str:
    """`1 problem`, `120 problems`."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def percent(value: float) -> str:
    """`55 %`, with a non-breaking space; one decimal below 10 % and above 99 % unless the number is whole."""
    x = 100 * value
    if 0 < x < 0.05:
        return "<\u00a00.1\u00a0%"
    fine = (0 < x < 10 and abs(x - round(x)) > 0.05) or 99 < x < 100
    return f"{x:.1f}\u00a0%" if fine else f"{x:.0f}\u00a0%"


def money(cost_usd: float | None, n_unpriced: int = 0) -> str:
    """US dollars, with a note on the `n_unpriced` calls that the amount does not include; `unknown` for None."""
    if cost_usd is None:
        return "unknown"
    amount = f"${cost_usd:.2f}" if cost_usd >= 0.1 or cost_usd == 0 else f"${cost_usd:.2g}"
    if cost_usd and cost_usd < 0.0001:
        amount = "under $0.0001"
    return f"{amount} + {count(n_unpriced, 'call')} of unknown price" if n_unpriced else amount


def interval(estimate: Mapping[str, Any], unit: Callable[[float], str] = percent) -> str:
    """`95 % interval 40 % to 60 %`, or a note that there is none because all units have the same value.

    Such an interval has zero width however few units there are (`Estimate.degenerate`); printed, it would read as
    certainty.
    """
    if estimate["degenerate"]:
        return ONE_VALUE
    low = unit(estimate["low"]).removesuffix(POINTS)
    return f"{percent(estimate['level'])} interval {low} to {unit(estimate['high'])}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * value:+.1f}{POINTS}".replace("-", "−")


def p_phrase(p: float) -> str:
    """A p-value with two significant digits: `p = 0.38`, `p < 0.001`."""
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.2g}"


def chance_words(p: float) -> str:
    """A p-value as a frequency: `38 of 100 such runs`."""
    if p < 0.001:
        return "fewer than 1 of 1000 such runs"
    if p < 0.1:
        return f"{1000 * p:.0f} of 1000 such runs"
    return f"{100 * p:.0f} of 100 such runs"


HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\u3164\ufeff"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that are invisible or that change the order in which others are displayed."""


def visible(value: object) -> object:
    """A string with its control and direction characters spelled out; any other value unchanged.

    Otherwise a text could reorder itself or its surroundings on screen (Boucher & Anderson 2021, "Trojan Source").
    Our own markup is left alone.
    """
    if type(value) is not str:
        return value
    return HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", value)
