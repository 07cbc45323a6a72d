"""Arithmetic expressions: how a problem is written, solved step by step, compared and assigned to a split.

An expression is a sum of signed terms and a term is a product of factors: `48+7*6-15`. There are no brackets, so
the order of work is fixed by precedence: products first, then the sum from left to right.
"""

import hashlib
import re
from dataclasses import dataclass

RESERVED_MODULUS = 8
"""One problem in this many (by hash of its canonical form) is reserved for experiments; training text never contains
one."""

# The salt keeps this split independent of any other split that hashes the same canonical text.
_RESERVED_SALT = "m3i-arithmetic reserved for experiments\n"

_NUMBER = r"\d{1,9}"
_PRODUCT = rf"{_NUMBER}(?:\*{_NUMBER})*"
_EXPRESSION = re.compile(rf"({_PRODUCT})((?:[+-]{_PRODUCT})*)")
_SIGNED_TERM = re.compile(rf"([+-])({_PRODUCT})")


@dataclass(frozen=True, kw_only=True)
class Term:
    """One signed product of an expression; a plain number is a product of one factor."""

    sign: int
    """+1 where the term is added, -1 where it is subtracted."""
    factors: tuple[int, ...]
    """The factors in the order written, each ≥ 0, at least one."""

    @property
    def value(self) -> int:
        """The signed value of the term."""
        product = 1
        for factor in self.factors:
            product *= factor
        return self.sign * product


@dataclass(frozen=True, kw_only=True)
class Expression:
    """A sum of signed products, such as `48+7*6-15`."""

    terms: tuple[Term, ...]
    """The terms from left to right, at least one; the first is never subtracted."""

    @property
    def value(self) -> int:
        """The value of the whole expression."""
        return sum(term.value for term in self.terms)

    @property
    def operations(self) -> int:
        """Number of operations (+, -, *) in the expression, which is the number of steps of its solution."""
        return sum(len(term.factors) for term in self.terms) - 1

    def __str__(self) -> str:
        """The expression as written in a prompt, without white space."""
        pieces = []
        for place, term in enumerate(self.terms):
            sign = "-" if term.sign < 0 else ("+" if place else "")
            pieces.append(sign + "*".join(str(factor) for factor in term.factors))
        return "".join(pieces)


def parse_expression(text: str) -> Expression:
    """Returns the expression written in `text`, white space ignored.

    Args:
        text: An expression, or a prompt such as `48 + 7*6 - 15 = ?`.

    Returns:
        The expression, terms and factors in the order written.

    Raises:
        ValueError: If the text is not an expression of nonnegative integers with +, - and *.
    """
    squeezed = "".join(text.split()).removesuffix("?").removesuffix("=")
    match = _EXPRESSION.fullmatch(squeezed)
    if match is None:
        raise ValueError(
            f"not an arithmetic problem: {text!r}; write one like '48+7*6-15=?' "
            "(nonnegative integers of at most 9 digits, +, - and *, no brackets)"
        )
    signed = [("+", match.group(1)), *_SIGNED_TERM.findall(match.group(2))]
    return Expression(
        terms=tuple(
            Term(sign=1 if sign == "+" else -1, factors=tuple(int(factor) for factor in product.split("*")))
            for sign, product in signed
        )
    )


def canonical(problem: Expression | str) -> str:
    """The canonical form, equal for two writings of one problem: white space removed, sums and products sorted.

    `15+6 * 7-3`, `7*6+15-3` and `15-3+6*7` share one canonical form, since addition and multiplication commute.
    Subtraction does not: `9-3` and `3-9` differ. Leading zeros are dropped.
    """
    expression = parse_expression(problem) if isinstance(problem, str) else problem
    ordered = sorted(
        (Term(sign=term.sign, factors=tuple(sorted(term.factors))) for term in expression.terms),
        key=lambda term: (-term.sign, term.factors),
    )
    return "".join(("+" if term.sign > 0 else "-") + "*".join(map(str, term.factors)) for term in ordered)


def canonical_hash(problem: Expression | str) -> str:
    """SHA-256 of the canonical form, in hexadecimal (64 characters)."""
    return hashlib.sha256(canonical(problem).encode()).hexdigest()


def is_reserved(problem: Expression | str) -> bool:
    """Whether the problem is reserved for experiments; if not, training text of a shipped target may contain it.

    The rule depends only on the canonical form, so it holds for every difficulty and every seed: no problem that an
    experiment can draw, however commuted or spaced, is ever in training text.
    """
    digest = hashlib.sha256((_RESERVED_SALT + canonical(problem)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % RESERVED_MODULUS == 0


def render_prompt(expression: Expression) -> str:
    """The prompt of a problem: the expression, `=?` and a newline."""
    return f"{expression}=?\n"


def solve(expression: Expression) -> tuple[str, ...]:
    """Returns the written-out solution: one line per step, then `answer N`; no newlines in the lines.

    Products come first, from left to right; then the sum, from left to right. An expression of one number has no steps,
    only its answer.
    """
    lines = []
    numbers: list[tuple[int, int]] = []
    for term in expression.terms:
        product = term.factors[0]
        for factor in term.factors[1:]:
            lines.append(f"{product}*{factor}={product * factor}")
            product *= factor
        numbers.append((term.sign, product))
    total = numbers[0][0] * numbers[0][1]
    for sign, number in numbers[1:]:
        result = total + sign * number
        lines.append(f"{total}{'+' if sign > 0 else '-'}{number}={result}")
        total = result
    return (*lines, f"answer {total}")


def render_completion(expression: Expression) -> str:
    """The correct completion of a problem's prompt: every line of `solve`, each ended by a newline."""
    return "".join(line + "\n" for line in solve(expression))
