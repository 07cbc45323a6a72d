"""The report's figures. Layers always run upwards: layer 0, next to the input, is the bottom row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from m3i.report.svg import Scale, dot, element, figure, line, number, polyline, rect, text, tick_words

WIDTH = 360
SHADES = 31
"""Shades of a heat map above the lightest; cells of one shade share a path, which keeps large maps small on disk."""
Values = Sequence[float | None]


def row_height(n_layers: int) -> float:
    """Height of one layer's row: the same in all layer figures, so that neighbours line up."""
    return min(22.0, max(7.0, 640 / max(n_layers, 1)))


class Rows:
    """Vertical places of the layers, from the bottom up."""

    top = 26.0

    def __init__(self, n: int) -> None:
        self.n, self.height = n, row_height(n)
        self.bottom = self.top + n * self.height

    def y(self, layer: int) -> float:
        """Upper edge of a layer's row."""
        return self.bottom - (layer + 1) * self.height

    def middle(self, layer: int) -> float:
        """Centre of a layer's row."""
        return self.y(layer) + self.height / 2

    def labels(self, x: float, numbers: Sequence[int] | None = None) -> list[Markup]:
        """Layer numbers, fewer where rows are low; `numbers` names rows that are not layers 0, 1, ..."""
        step = 1 if self.height >= 12 else 2 if self.height >= 8.5 else 5
        names = list(numbers) if numbers is not None else list(range(self.n))
        return [text(x, self.middle(i) + 3.5, str(names[i]), "lbl num", "end") for i in range(self.n) if i % step == 0]

    def bands(self, selected: Sequence[int], x: float, width: float) -> list[Markup]:
        """The bands behind the selected layers."""
        return [rect(x, self.y(i), width, self.height, "band") for i in selected]


# -- the headline -------------------------------------------------------------------------------


def share_interval(test: Mapping[str, Any], detectable: float | None) -> Markup:
    """The tuned model's share of decided problems with its interval; shaded: effects too small to detect at this n."""
    x = Scale(0, 1, 14, WIDTH - 14)
    blind = (1 - detectable, detectable) if detectable is not None else (0.0, 1.0)
    parts = [
        rect(x(blind[0]), 22, x(blind[1]) - x(blind[0]), 40, "blind"),
        line(x(0), 62, x(1), 62, "axis"),
        line(x(0.5), 16, x(0.5), 62, "even"),
        text(x(0), 12, "base better", "lbl base-ink"),
        text(x(1), 12, "tuned better", "lbl tuned-ink", "end"),
        text(x(0.5), 12, "even", "lbl", "middle"),
    ]
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts += [line(x(value), 62, x(value), 66, "axis"), text(x(value), 78, f"{value * 100:.0f} %", "lbl", "middle")]
    parts.append(line(x(test["low"]), 42, x(test["high"]), 42, "whisker"))
    parts += [line(x(test[end]), 36, x(test[end]), 48, "whisker") for end in ("low", "high")]
    if test["share"] is not None:
        parts.append(dot(x(test["share"]), 42, 6, "estimate"))
    label = f"Tuned share of decided problems, interval {test['low']:.0%} to {test['high']:.0%}"
    return figure(WIDTH, 84, label, parts)


def accuracy_change(accuracy: Mapping[str, Any]) -> Markup:
    """Accuracy before and after, each with its interval."""
    x = Scale(0, 1, 52, WIDTH - 14)
    parts: list[Markup] = [line(x(0), 62, x(1), 62, "axis")]
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts += [line(x(value), 14, x(value), 62, "grid"), text(x(value), 78, f"{value * 100:.0f} %", "lbl", "middle")]
    for side, y in (("base", 26), ("tuned", 48)):
        row = accuracy[side]
        parts.append(text(x(0) - 8, y + 4, side, f"lbl {side}-ink", "end"))
        if not row["degenerate"]:
            parts.append(line(x(row["low"]), y, x(row["high"]), y, f"whisker {side}-line"))
        if row["value"] is not None:
            parts.append(dot(x(row["value"]), y, 5.5, f"{side}-fill"))
    return figure(WIDTH, 84, "Accuracy of base and tuned model with intervals", parts)


# -- layers -------------------------------------------------------------------------------------


def layer_stack(layers: Mapping[str, Any], n_experts: int) -> Markup:
    """The model as a stack: dense layers solid, MoE layers as their experts, selected layers coloured."""
    rows = Rows(layers["n"])
    selected, dense = set(layers["selected"]), set(layers["dense"])
    parts: list[Markup] = [
        text(40, 16, "to the vocabulary ↑", "lbl"),
        *rows.labels(30),
        text(40, rows.bottom + 15, "↑ from the text", "lbl"),
    ]
    left, width = 40.0, 210.0
    gap = 1.5 if rows.height >= 10 else 0.75
    for i in range(layers["n"]):
        css = "picked" if i in selected else "block"
        y, h = rows.y(i) + gap, rows.height - 2 * gap
        if layers["moe"] and i not in dense:
            cells = min(max(n_experts, 2), 16)
            attention = width * 0.3
            parts.append(rect(left, y, attention, h, css, rx=1.5))
            cell = (width - attention) / cells
            parts += [rect(left + attention + k * cell + 1.5, y, cell - 1.5, h, css, rx=1) for k in range(cells)]
        else:
            parts.append(rect(left, y, width, h, css, rx=1.5))
        if i in selected:
            word = "sham" if layers["zero_update"] else "trained"
            parts.append(text(left + width + 8, rows.middle(i) + 3.5, word, "lbl picked-ink"))
        elif i not in layers["candidates"] and rows.height >= 12:
            parts.append(text(left + width + 8, rows.middle(i) + 3.5, "not a candidate", "lbl faint"))
    return figure(WIDTH, rows.bottom + 22, f"{layers['n']} layers, {len(selected)} selected", parts)


def score_panel(scores: Mapping[str, Any], selected: Sequence[int], candidates: Sequence[int]) -> Markup:
    """One attributor: joint score and interval of each layer, single observers as small rings."""
    joint = next(row for row in scores["rows"] if row["observer"] == "joint")
    others = [row for row in scores["rows"] if row["observer"] != "joint"]
    rows = Rows(len(joint["scores"]))
    drawn = [v for row in (joint,) for name in ("low", "high", "scores") for v in row[name] if v is not None]
    drawn += [v for row in others for v in row["scores"] if v is not None] or [0.0]
    x = Scale(min(0.0, *drawn), max(0.0, *drawn), 40, WIDTH - 16)
    parts = [*rows.bands(selected, 34, WIDTH - 38), *rows.labels(30), *_axis(x, rows)]
    parts.append(line(x(0), rows.top, x(0), rows.bottom, "zero"))
    for i in range(rows.n):
        y = rows.middle(i)
        faint = "" if i in candidates else " faint"
        low, high, score = joint["low"][i], joint["high"][i], joint["scores"][i]
        if low is not None and high is not None:
            parts.append(line(x(low), y, x(high), y, f"whisker thin{faint}"))
        parts += [dot(x(row["scores"][i]), y, 2.6, "ring") for row in others if row["scores"][i] is not None]
        if score is not None:
            parts.append(dot(x(score), y, 4, ("picked-dot" if i in selected else "plain-dot") + faint))
    return figure(WIDTH, rows.bottom + 22, f"Scores of {rows.n} layers with intervals", parts)


def profile(curves: Mapping[str, Values], selected: Sequence[int], numbers: Sequence[int] | None = None) -> Markup:
    """A measure by layer, inside findings and in correct traces."""
    n = len(next(iter(curves.values())))
    rows = Rows(n)
    values = [v for curve in curves.values() for v in curve if v is not None] or [0.0]
    x = Scale(min(values), max(values), 44, WIDTH - 20)
    names = list(numbers) if numbers is not None else list(range(n))
    picked = [i for i, layer in enumerate(names) if layer in selected]
    parts = [*rows.bands(picked, 34, WIDTH - 38), *rows.labels(30, numbers), *_axis(x, rows)]
    for name, css in (("right", "line tuned-line"), ("finding", "line base-line")):
        points = [None if v is None else (x(v), rows.middle(i)) for i, v in enumerate(curves[name])]
        parts += polyline(points, css)
    return figure(WIDTH, rows.bottom + 22, f"Means of {n} layers in failures and in correct traces", parts)


def _axis(x: Scale, rows: Rows) -> list[Markup]:
    parts = []
    for value in x.ticks():
        parts.append(line(x(value), rows.top, x(value), rows.bottom, "grid"))
        parts.append(text(x(value), rows.bottom + 15, tick_words(value), "lbl", "middle"))
    return parts


# -- heat maps ----------------------------------------------------------------------------------


def heat_map(values: Sequence[Values], *, numbers: Sequence[int] | None, left: str, right: str, label: str) -> Markup:
    """A map of rows (bottom up) × columns: darker is higher; the scale is above it."""
    rows = Rows(len(values))
    known = [v for row in values for v in row if v is not None] or [0.0]
    low, high = min(known), max(known)
    n_columns = max(len(row) for row in values)
    width = (WIDTH - 48) / n_columns
    parts: list[Markup] = [*rows.labels(30, numbers)]
    cells: dict[int, list[str]] = {}
    box = f"h{number(width)}v{number(rows.height)}h-{number(width)}z"
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if value is not None:
                level = round(SHADES * (value - low) / (high - low)) if high > low else 0
                cells.setdefault(level, []).append(f"M{number(36 + j * width)} {number(rows.y(i))}{box}")
    parts += [element("path", d="".join(d), css="heat", fill_opacity=_shade(level)) for level, d in cells.items()]
    parts += [rect(WIDTH - 132 + k * 9, 8, 9.3, 8, "heat", fill_opacity=_shade(SHADES * k / 7)) for k in range(8)]
    parts += [
        text(WIDTH - 137, 16, tick_words(float(f"{low:.2g}")), "lbl", "end"),
        text(WIDTH - 55, 16, tick_words(float(f"{high:.2g}")), "lbl"),
        text(36, rows.bottom + 15, left, "lbl"),
        text(WIDTH - 12, rows.bottom + 15, right, "lbl", "end"),
    ]
    return figure(WIDTH, rows.bottom + 22, label, parts)


def _shade(level: float) -> float:
    return round(0.04 + 0.96 * level / SHADES, 3)


# -- parameters and training --------------------------------------------------------------------


def nested_selectors(parameters: Mapping[str, Any]) -> Markup:
    """Parameters on disk, active for a token, trained: squares whose areas are to scale."""
    side, top = 190.0, 8.0
    disk = max(parameters["on_disk"], 1)
    boxes = (("on_disk", "disk-box"), ("active", "active-box"), ("trained", "trained-box"))
    parts: list[Markup] = []
    anchors = []
    for name, css in boxes:
        edge = max(side * math.sqrt(min(parameters[name] / disk, 1.0)), 2.0 if parameters[name] else 0.0)
        parts.append(rect(8, top + side - edge, edge, edge, css))
        anchors.append((8 + edge, top + side - edge))
    for (edge_x, edge_y), y, (name, _) in zip(anchors, (22, 92, 162), boxes, strict=True):
        bend = f"M{edge_x:.1f} {edge_y + 1:.1f}H{max(edge_x, 202):.1f}L212 {y + 8}"
        parts.append(element("path", d=bend, css="lead"))
        words = {"on_disk": "on disk", "active": "active per token", "trained": "trained"}[name]
        parts.append(text(216, y + 4, magnitude(parameters[name]), "big"))
        share = "" if name == "on_disk" else f" · {share_words(parameters[name] / disk)}"
        parts.append(text(216, y + 20, f"{words}{share}", "lbl"))
    return figure(WIDTH, 206, "Parameters on disk, active for one token, trained; areas to scale", parts)


def magnitude(value: float) -> str:
    """`15.7 B`, `2.4 M`, `1,485 K`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def share_words(value: float) -> str:
    """A share of parameters, small ones with two significant digits."""
    return f"{100 * value:.0f}\u00a0%" if value >= 0.1 else f"{100 * value:.2g}\u00a0%"


def curve(values: Values, *, base_line: float | None, css: str, label: str) -> Markup:
    """A quantity by optimizer step."""
    known = [v for v in values if v is not None] or [0.0]
    if base_line is not None:
        known = [*known, base_line]
    y = Scale(min(known), max(known), 128, 14)
    x = Scale(0, max(len(values) - 1, 1), 46, WIDTH - 14)
    parts: list[Markup] = []
    for value in y.ticks(3):
        parts.append(line(46, y(value), WIDTH - 14, y(value), "grid"))
        parts.append(text(40, y(value) + 4, tick_words(value), "lbl", "end"))
    if base_line is not None:
        parts.append(line(46, y(base_line), WIDTH - 14, y(base_line), "zero"))
    parts += polyline([None if v is None else (x(i), y(v)) for i, v in enumerate(values)], f"line {css}")
    parts += [text(46, 146, "step 1", "lbl"), text(WIDTH - 14, 146, str(len(values)), "lbl", "end")]
    return figure(WIDTH, 152, label, parts)
