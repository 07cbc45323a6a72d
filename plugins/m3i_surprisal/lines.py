"""Scores the lines of a trace: where along its own text the model was surprised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3i import Trace, line_around

TOKEN, LINE = "token", "line"


@dataclass(frozen=True)
class Line:
    """One line (one written step) of a completion."""

    start: int
    """Character span without the white space around it."""
    end: int
    score: float
    """In nats: the largest surprisal of a token in it, or the sum over its tokens."""
    peak: int
    """Completion token with the largest surprisal."""


def score_lines(trace: Trace, statistic: str) -> list[Line]:
    """The non-blank lines of a trace, in order; a line includes the newline that ends it.

    Args:
        trace: A trace with one log-probability per token.
        statistic: `token` scores a line by its most surprising token, `line` by the surprisal of the whole line.
    """
    surprisal = -np.array(trace.logprobs)
    tokens_of: dict[tuple[int, int], list[int]] = {}
    for i, (start, end) in enumerate(trace.offsets):
        if start < end:
            tokens_of.setdefault(line_around(trace.text, start), []).append(i)
    lines = []
    for (start, end), tokens in sorted(tokens_of.items()):
        if start == end:
            continue
        values = surprisal[tokens]
        score = values.max() if statistic == TOKEN else values.sum()
        # The quote must overlap its peak, and a newline lies outside the quoted line.
        inside = [i for i in tokens if trace.offsets[i][0] < end and trace.offsets[i][1] > start]
        lines.append(Line(start, end, float(score), inside[int(surprisal[inside].argmax())]))
    return lines


def token_class(text: str) -> str:
    """The kind of a token's text: digit, letter, space or other; decided by its first non-space character."""
    stripped = text.strip()
    if not stripped:
        return "space"
    first = stripped[0]
    return "digit" if first.isdigit() else "letter" if first.isalpha() else "other"


def classes_of(trace: Trace) -> list[str]:
    """The class of every completion token; special tokens are `end`."""
    return [token_class(trace.text[a:b]) if a < b else "end" for a, b in trace.offsets]


def largest(lines: Sequence[Line]) -> float:
    """The largest score among a trace's lines; 0 without a line (a surprisal is never below 0)."""
    return max((line.score for line in lines), default=0.0)
