"""Whether an answer equals the reference: as text, as a number, or as mathematics."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from m3i import ConfigError

INSTALL = "pip install 'm3i[math]'"


def same_text(reference: str, answer: str) -> bool:
    """Whether the texts are equal up to white space."""
    return " ".join(reference.split()) == " ".join(answer.split())


def same_number(reference: str, answer: str) -> bool:
    """Whether the numbers are equal: `1,000`, `1000.0`, `+1000` and `2000/2` are. False if either is not a number."""
    a, b = as_number(reference), as_number(answer)
    return a is not None and a == b


def as_number(text: str) -> Fraction | None:
    """The exact value of an integer, a decimal, a percentage or a fraction; None for anything else."""
    cleaned = text.strip().replace(",", "").replace("−", "-").replace("$", "").replace(" ", "")
    percent = cleaned.endswith("%")
    parts = cleaned.removesuffix("%").split("/")
    if not 1 <= len(parts) <= 2:
        return None
    try:
        values = [Decimal(part) for part in parts]
        if not all(value.is_finite() and abs(value.adjusted()) < 400 for value in values):
            return None
        number = Fraction(values[0]) / (Fraction(values[1]) if len(values) == 2 else 1)
    except (InvalidOperation, ZeroDivisionError):
        return None
    return number / 100 if percent else number


def same_mathematics(reference: str, answer: str) -> bool:
    """Whether math-verify finds them equal, symbolically or to its precision. Raises ConfigError if missing."""
    try:
        from math_verify import parse, verify
    except ImportError:
        raise ConfigError(f"problems.compare = math_verify needs the package math-verify; run: {INSTALL}") from None
    # math-verify's timeouts need signals, which only a main thread has; the answers compared here are short.
    gold, given = parse(_as_latex(reference), parsing_timeout=None), parse(_as_latex(answer), parsing_timeout=None)
    return bool(gold) and bool(given) and bool(verify(gold, given, timeout_seconds=None))


def _as_latex(text: str) -> str:
    return text if "$" in text or "\\boxed" in text else f"${text}$"


COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "exact": same_text,
    "numeric": same_number,
    "math_verify": same_mathematics,
}
"""Option's value → comparison of (reference, answer)."""
