"""Building blocks of the figures: SVG elements made of numbers and fixed words, coloured by CSS classes.

No text of a model, a user or a plugin enters an SVG; names appear only in the captions, which the template escapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

Number = int | float


def element(name: str, *children: str, **attributes: Number | str) -> Markup:
    """One element; `_` in an attribute's name becomes `-`, `css` becomes `class`, numbers get at most two decimals."""
    pairs = []
    for key, value in attributes.items():
        text = number(value) if isinstance(value, (int, float)) else str(value)
        pairs.append(f' {"class" if key == "css" else key.replace("_", "-")}="{escape(text)}"')
    return Markup(f"<{name}{''.join(pairs)}>{''.join(escape(c) for c in children)}</{name}>")


def number(value: Number) -> str:
    """At most two decimals, no trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def figure(width: Number, height: Number, label: str, children: Iterable[str], css: str = "") -> Markup:
    """A figure that scales with the page; `label` is read by screen readers."""
    return element(
        "svg",
        element("title", label),
        *children,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        css=f"fig {css}".strip(),
        xmlns="http://www.w3.org/2000/svg",
    )


def rect(x: Number, y: Number, w: Number, h: Number, css: str, **attributes: Number | str) -> Markup:
    """A rectangle; negative sizes are drawn as zero."""
    return element("rect", x=x, y=y, width=max(w, 0), height=max(h, 0), css=css, **attributes)


def line(x1: Number, y1: Number, x2: Number, y2: Number, css: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, css=css)


def text(x: Number, y: Number, words: str, css: str = "lbl", anchor: str = "start") -> Markup:
    """A label; `words` are numbers or fixed words."""
    return element("text", words, x=x, y=y, css=css, text_anchor=anchor)


def dot(x: Number, y: Number, r: Number, css: str) -> Markup:
    """A circle."""
    return element("circle", cx=x, cy=y, r=r, css=css)


def polyline(points: Sequence[tuple[float, float] | None], css: str) -> list[Markup]:
    """A line through the points, broken where a point is None."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    return [
        element("polyline", points=" ".join(f"{number(float(x))},{number(float(y))}" for x, y in run), css=css)
        if len(run) > 1
        else dot(*run[0], 1.5, f"{css} point")
        for run in runs
        if run
    ]


class Scale:
    """A linear map from values to positions."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        """Maps [low, high] to [start, end]; a range of zero width is widened around its value."""
        if high <= low:
            low, high = low - (abs(low) * 0.5 or 1.0), high + (abs(high) * 0.5 or 1.0)
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        """Position of a value, kept inside the figure."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, n: int = 4) -> list[float]:
        """About n round values within the range."""
        raw = (self.high - self.low) / n
        power = 10.0 ** _floor_log10(raw)
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw - 1e-12)
        first = -(-self.low // step)
        count = int((self.high - first * step) / step + 1e-9) + 1
        return [(first + i) * step for i in range(count)]


def _floor_log10(value: float) -> int:
    import math

    return math.floor(math.log10(value))


def tick_words(value: float) -> str:
    """An axis label of few characters."""
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if abs(value) >= 10_000 or abs(value) < 0.001:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    return f"{value:.4g}".replace("-", "−")
