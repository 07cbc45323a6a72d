"""The figures of a sweep: the attributed arm among its controls, layers in use, equivalence, sources of variance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from m3i.config.arms import ArmKind
from m3i.report.figures import WIDTH, Rows
from m3i.report.svg import Scale, dot, element, figure, line, rect, text, tick_words
from m3i.report.sweep_texts import edge, lanes, layer_use, part

WIDE = 860
"""Width of the headline figure on a wide screen; on a narrow one it is WIDTH."""
LANE, TOP = 30.0, 34.0


def arms_figure(endpoint: Mapping[str, Any], width: int = WIDE) -> Markup:
    """T of the attributed arm, of each random arm and of the other arms; shaded: where p would be above alpha."""
    left, radius = (150.0, 5.0) if width == WIDE else (92.0, 3.6)
    x = _scale(endpoint, left + 12, width - 16)
    controls = [p for p in endpoint["controls"] if p["t"] is not None]
    levels = swarm([x(p["t"]) for p in controls], 2.05 * radius)
    spread = (max(levels, default=0) - min(levels, default=0)) * 2.05 * radius
    attributed_y = TOP + 22
    random_y = attributed_y + 26 + radius + max(levels, default=0) * 2.05 * radius + 8
    bottom_of_random = random_y - min(levels, default=0) * 2.05 * radius + radius + 16
    more = lanes(endpoint)
    bottom = (bottom_of_random if controls else attributed_y + 14) + LANE * len(more) + 6
    parts = [
        *_null(endpoint, x, bottom),
        *_axis(endpoint, x, bottom, 7 if width == WIDE else 4),
        *_base(endpoint, x, bottom),
    ]
    parts += _attributed(endpoint, x, attributed_y, bottom_of_random if controls else attributed_y, left)
    if controls:
        parts.append(text(left, random_y + 4, f"Random × {len(controls)}", "lbl name", "end"))
        for place, level in zip(controls, levels, strict=True):
            parts.append(_titled(dot(x(place["t"]), random_y - level * 2.05 * radius, radius, "random-dot"), place))
        rug = random_y + spread / 2 + radius + 7 if not levels else bottom_of_random - 7
        parts += [line(x(s["t"]), rug - 4, x(s["t"]), rug + 4, "seed") for p in controls for s in p["by_seed"]]
        if endpoint["controls_mean"] is not None:
            mean = x(endpoint["controls_mean"])
            parts.append(line(mean, attributed_y + 12, mean, rug + 6, "mean"))
    y = (bottom_of_random if controls else attributed_y + 14) + LANE / 2
    for label, places in more:
        parts.append(text(left, y + 4, label, "lbl name", "end"))
        for place in places:
            parts += [line(x(s["t"]), y - 5, x(s["t"]), y + 5, "seed") for s in place["by_seed"]]
            parts.append(_titled(_diamond(x(place["t"]), y, radius + 0.5, f"other-mark {place['kind']}"), place))
        y += LANE
    label = f"The attributed arm among {len(controls)} random arms" + (f" and {len(more)} other kinds" if more else "")
    return figure(width, bottom + 34, label, parts, "wide" if width == WIDE else "narrow")


def goes_on(endpoint: Mapping[str, Any]) -> bool:
    """Whether the attributed arm's interval runs beyond the headline figure."""
    x = _scale(endpoint, 0.0, 1.0)
    return any(not x.low <= value <= x.high for value in _whisker(endpoint) or ())


def swarm(places: Sequence[float], apart: float) -> list[int]:
    """Level of each dot (0, 1, −1, 2, ...), so that dots nearer to each other than `apart` lie on different levels."""
    levels: list[int] = []
    for i, place in enumerate(places):
        taken = {levels[j] for j in range(i) if abs(places[j] - place) < apart}
        steps = (step for n in range(len(places) + 1) for step in ((n, -n) if n else (0,)))
        levels.append(next(step for step in steps if step not in taken))
    return levels


def _scale(endpoint: Mapping[str, Any], start: float, end: float) -> Scale:
    places = [endpoint["attributed"], *endpoint["controls"], *(p for _, ps in lanes(endpoint) for p in ps)]
    values = [value for p in places for value in (p["t"], *(s["t"] for s in p["by_seed"])) if value is not None]
    values += [endpoint["base"]] if endpoint["base"] is not None else []
    low, high = min(values), max(values)
    reach = (high - low) * 0.6 or math.inf
    for value in _whisker(endpoint) or ():
        low, high = min(low, max(value, low - reach)), max(high, min(value, high + reach))
    pad = 0.05 * (high - low)
    return Scale(low - pad, high + pad, start, end)


def _null(endpoint: Mapping[str, Any], x: Scale, bottom: float) -> list[Markup]:
    """The region in which the attributed arm could not be told from random arms."""
    test, border = endpoint["test"], edge(endpoint)
    if test is None or test["alternative"] == "two-sided":
        return []
    ends = {"greater": (x.start, x(border) if border is not None else x.end),
            "less": (x(border) if border is not None else x.start, x.end)}[test["alternative"]]  # fmt: skip
    return [rect(ends[0], TOP, ends[1] - ends[0], bottom - TOP, "null")]


def _axis(endpoint: Mapping[str, Any], x: Scale, bottom: float, n: int) -> list[Markup]:
    parts = [line(x.start, bottom, x.end, bottom, "axis")]
    for value in x.ticks(n):
        words = f"{100 * value:.3g} %" if endpoint["kind"] == "accuracy" else tick_words(float(f"{value:.6g}"))
        parts += [line(x(value), bottom, x(value), bottom + 4, "axis")]
        parts += [text(x(value), bottom + 18, words.replace("-", "−"), "lbl", "middle")]
    return parts


def _base(endpoint: Mapping[str, Any], x: Scale, bottom: float) -> list[Markup]:
    if endpoint["base"] is None:
        return []
    at = x(endpoint["base"])
    anchor = "end" if at > (x.start + x.end) / 2 else "start"
    return [line(at, TOP - 14, at, bottom, "even"), text(at + (-5 if anchor == "end" else 5), TOP - 8,
                                                          "base model", "lbl", anchor)]  # fmt: skip


def _attributed(endpoint: Mapping[str, Any], x: Scale, y: float, foot: float, left: float) -> list[Markup]:
    place, ends = endpoint["attributed"], _whisker(endpoint)
    parts = [text(left, y + 4, "Attributed", "lbl name picked-ink", "end")]
    parts.append(line(x(place["t"]), y, x(place["t"]), foot, "drop"))
    if ends:
        parts.append(line(x(ends[0]), y, x(ends[1]), y, "whisker tuned-line"))
        parts += [line(x(v), y - 5, x(v), y + 5, "whisker tuned-line") for v in ends if x.low <= v <= x.high]
    parts += [line(x(s["t"]), y - 10, x(s["t"]), y + 10, "seed own") for s in place["by_seed"]]
    return [*parts, _titled(_diamond(x(place["t"]), y, 8, "picked-dot"), place)]


def _whisker(endpoint: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval of the attributed arm's difference from its controls, placed at their mean; open where too long."""
    effect, mean = endpoint["effect"], endpoint["controls_mean"]
    if effect is None or mean is None or effect["difference"]["degenerate"]:
        return None
    return mean + effect["difference"]["low"], mean + effect["difference"]["high"]


def _diamond(x: float, y: float, r: float, css: str) -> Markup:
    corners = f"M{x:.2f} {y - r:.2f}L{x + r:.2f} {y:.2f}L{x:.2f} {y + r:.2f}L{x - r:.2f} {y:.2f}Z"
    return element("path", d=corners, css=css)


def _titled(mark: Markup, place: Mapping[str, Any]) -> Markup:
    """A mark that names its arm on hover; the name is a fixed word and a number."""
    layers = ", ".join(str(int(layer)) for layer in place["layers"])
    name = place["kind"] if place["kind"] in [kind.value for kind in ArmKind] else "arm"
    number = str(place["arm"]).rpartition("-")[2]
    words = f"{name} {number}" if number.isdigit() else name
    return element("g", element("title", f"{words}, layers {layers}: {place['t']:.4f}"), mark)


# -- layers -------------------------------------------------------------------------------------


def layer_counts(endpoint: Mapping[str, Any], n_layers: int, selected: Sequence[int]) -> Markup:
    """How many random arms include each layer."""
    counts, _ = layer_use(endpoint, n_layers)
    rows = Rows(n_layers)
    x = Scale(0, max([*counts, 1]), 40, WIDTH - 40)
    parts = [*rows.bands(selected, 34, WIDTH - 38), *rows.labels(30)]
    for i, n in enumerate(counts):
        gap = min(4.0, rows.height / 5)
        parts.append(rect(x(0), rows.y(i) + gap, x(n) - x(0), rows.height - 2 * gap, "count", rx=1.5))
        parts.append(text(x(n) + 5, rows.middle(i) + 3.5, str(n), "lbl"))
    return figure(WIDTH, rows.bottom + 22, f"How many random arms include each of {n_layers} layers", parts)


def layer_means(endpoint: Mapping[str, Any], n_layers: int, selected: Sequence[int]) -> Markup:
    """Mean T of the random arms that include each layer; the line is the mean of all random arms."""
    _, means = layer_use(endpoint, n_layers)
    rows = Rows(n_layers)
    values = [m for m in means if m is not None]
    every = endpoint["controls_mean"]
    values += [every] if every is not None else []
    x = Scale(min(values), max(values), 52, WIDTH - 24)
    parts = [*rows.bands(selected, 34, WIDTH - 38), *rows.labels(30)]
    for value in x.ticks(3):
        parts += [line(x(value), rows.top, x(value), rows.bottom, "grid")]
        parts += [text(x(value), rows.bottom + 15, tick_words(float(f"{value:.6g}")), "lbl", "middle")]
    if every is not None:
        parts.append(line(x(every), rows.top, x(every), rows.bottom, "zero"))
    for i, mean in enumerate(means):
        if mean is not None:
            start = x(every) if every is not None else x(mean)
            parts.append(line(start, rows.middle(i), x(mean), rows.middle(i), "whisker thin"))
            parts.append(dot(x(mean), rows.middle(i), 4, "picked-dot" if i in selected else "plain-dot"))
    return figure(WIDTH, rows.bottom + 22, f"Mean T of the random arms that include each of {n_layers} layers", parts)


# -- equivalence and variance -------------------------------------------------------------------


def equivalence_figure(endpoint: Mapping[str, Any]) -> Markup:
    """The margin, and the intervals of the attributed arm's difference from the controls and from the base model."""
    section = endpoint["equivalence"]
    rows = [(name, section[key]) for key, name in (("controls", "from controls"), ("base", "from base"))]
    ends = [row[end] - row["neutral"] for _, row in rows if row is not None for end in ("low", "high")]
    reach = 1.25 * max([abs(v) for v in ends] + [section["margin"]])
    x = Scale(-reach, reach, 86, WIDTH - 12)
    margin = section["margin"]
    parts = [rect(x(-margin), 16, x(margin) - x(-margin), 66, "band"), line(x(0), 16, x(0), 82, "even")]
    for y, (name, row) in zip((34, 62), rows, strict=True):
        parts.append(text(78, y + 4, name, "lbl", "end"))
        if row is None:
            parts.append(text(x(0), y + 4, "not computed", "lbl", "middle"))
            continue
        low, high = row["low"] - row["neutral"], row["high"] - row["neutral"]
        shown = row["equivalent"] and not section["too_wide"]
        css = "whisker tuned-line" if shown else "whisker"
        parts.append(line(x(low), y, x(high), y, css))
        parts += [line(x(v), y - 6, x(v), y + 6, css) for v in (low, high)]
        parts.append(dot(x((low + high) / 2), y, 4, "picked-dot" if shown else "estimate"))
    parts.append(line(x.start, 82, x.end, 82, "axis"))
    for value in sorted({-margin, 0.0, margin}):
        parts.append(text(x(value), 97, ("+" if value > 0 else "") + tick_words(value), "lbl", "middle"))
    return figure(WIDTH, 104, f"Intervals of differences against a margin of {margin:g}", parts)


def variance_bar(row: Mapping[str, Any]) -> Markup:
    """Shares of the variance of one score, in the order of the table beside it."""
    parts, x, width = [], 4.0, WIDTH - 8.0
    for component in row["components"]:
        share = component["share"] or 0.0
        if share > 0:
            parts.append(rect(x, 6, share * width, 30, part(component["name"])))
            if share > 0.09:
                parts.append(text(x + share * width / 2, 51, f"{share * 100:.0f} %", "lbl", "middle"))
        x += share * width
    return figure(WIDTH, 58, "Shares of the variance of one score by source", parts)
