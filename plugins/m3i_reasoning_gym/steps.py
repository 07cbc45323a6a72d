"""Recomputes the steps that a completion writes out as equations."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from fractions import Fraction

from m3i import StepError

_NUMBER = r"-?\d{1,12}"
_STEP = re.compile(rf"(?<![\w.])({_NUMBER})\s*([-+*/×])\s*({_NUMBER})\s*=\s*({_NUMBER})(?!\w|\.\d)")
_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "×": operator.mul,
    "/": operator.truediv,
}


def first_wrong_step(text: str) -> StepError | None:
    """The first equation of two numbers, such as `15 + 9 = 20`, whose result is wrong; None if there is none.

    Equations with more than one operation, or with words, are not read.
    """
    for match in _STEP.finditer(text):
        left, sign, right, written = match.groups()
        if text[: match.start()].rstrip()[-1:] in tuple("-+*/×="):
            continue  # the tail of a longer expression
        if sign == "/" and int(right) == 0:
            continue
        value = _OPERATIONS[sign](Fraction(left), Fraction(right))
        if value != Fraction(written):
            start, end = match.span(4)
            return StepError(
                start=start,
                end=end,
                kind="arithmetic",
                corrected=str(value),
                reason=f"{left} {sign} {right} is {value}, not {written}",
            )
    return None
