"""Works out one operation of an expression: what is left when its two operands are replaced by their result."""

from dataclasses import replace

from .expressions import Expression, Term


def reduce_expression(left: Expression, a: int, operator: str, b: int, result: int) -> Expression | None:
    """Returns what is left after `a operator b` is replaced by `result`; None if `left` has no such operation.

    Args:
        left: What is still to be worked out.
        a: Left operand; negative only if a negative total is carried on.
        operator: `+`, `-` or `*`.
        b: Right operand, ≥ 0.
        result: The number that takes their place; it is not checked.
    """
    return _reduce_product(left, a, b, result) if operator == "*" else _reduce_sum(left, a, operator, b, result)


def _reduce_product(left: Expression, a: int, b: int, result: int) -> Expression | None:
    terms = list(left.terms)
    for place, term in enumerate(terms):
        rest = _without(term.factors, a, b)
        if rest is not None:
            terms[place] = replace(term, factors=(result, *rest))
            return Expression(terms=tuple(terms))
    return None


def _reduce_sum(left: Expression, a: int, operator: str, b: int, result: int) -> Expression | None:
    terms = list(left.terms)
    sign_b = 1 if operator == "+" else -1
    # -a-b may be written as a+b, and -a+b as a-b: both are valid ways to shorten a sum, with the opposite sign.
    for flip in (1, -1):
        first = _find(terms, flip * a, besides=-1)
        second = _find(terms, flip * sign_b * b, besides=first)
        if first >= 0 and second >= 0:
            value = flip * result
            joined = Term(sign=1 if value >= 0 else -1, factors=(abs(value),))
            rest = [term for place, term in enumerate(terms) if place not in (first, second)]
            rest.insert(min(first, second), joined)
            # A positive term comes first, if there is one, as in every written expression.
            lead = next((place for place, term in enumerate(rest) if term.sign > 0), 0)
            return Expression(terms=(rest[lead], *rest[:lead], *rest[lead + 1 :]))
    return None


def _without(factors: tuple[int, ...], a: int, b: int) -> tuple[int, ...] | None:
    """The factors without a and b; None if they are not both there."""
    rest = list(factors)
    for factor in (a, b):
        if factor not in rest:
            return None
        rest.remove(factor)
    return tuple(rest)


def _find(terms: list[Term], signed: int, *, besides: int) -> int:
    """Index of a plain number with this signed value among the terms, -1 if there is none."""
    for place, term in enumerate(terms):
        if place != besides and len(term.factors) == 1 and term.value == signed:
            return place
    return -1
