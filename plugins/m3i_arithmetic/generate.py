"""Random arithmetic problems of a stated difficulty, from either side of the split."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from .expressions import Expression, Term, is_reserved

DRAWS_BEFORE_GIVING_UP = 10_000
"""Consecutive draws without a problem from the wanted side after which that side counts as empty (it is 1/8 or 7/8 of
all)."""


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How long the problems are and how large their numbers get."""

    operations_min: int = 3
    """Minimum number of operations per problem, ≥ 1."""
    operations_max: int = 5
    """Maximum number of operations per problem, ≥ `operations_min`."""
    products_max: int = 2
    """Maximum number of multiplications per problem, ≥ 0; each is one of the operations."""
    largest_operand: int = 99
    """Largest number that is added or subtracted as written, ≥ 2."""
    largest_factor: int = 9
    """Largest left factor of a multiplication, ≥ 2."""
    largest_multiplicand: int = 19
    """Largest right factor of a multiplication, ≥ 2."""
    largest_value: int = 999
    """Largest intermediate result and answer, ≥ every single term; no value is ever negative."""

    def __post_init__(self) -> None:
        """Refuses settings that no problem can meet."""
        if not 1 <= self.operations_min <= self.operations_max:
            raise ValueError(
                "operations_min and operations_max must satisfy 1 <= operations_min <= operations_max; "
                f"got {self.operations_min} and {self.operations_max}"
            )
        if self.products_max < 0:
            raise ValueError(f"products_max must be 0 or more; got {self.products_max}")
        for name in ("largest_operand", "largest_factor", "largest_multiplicand"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be 2 or more; got {getattr(self, name)}")
        largest_term = max(self.largest_operand, self.largest_factor * self.largest_multiplicand)
        if self.largest_value < largest_term:
            raise ValueError(
                f"largest_value must be at least the largest term, {largest_term}; got {self.largest_value}"
            )


def draw_expression(rng: random.Random, difficulty: Difficulty) -> Expression:
    """Draws one random expression, from either side of the split.

    Args:
        rng: The source of randomness; the draw depends only on its state.
        difficulty: The range of lengths and numbers.

    Returns:
        An expression whose intermediate results, in the order of `solve`, lie between 0 and `largest_value`.
    """
    operations = rng.randint(difficulty.operations_min, difficulty.operations_max)
    # A sum needs at least two terms for its products to matter; one operation alone may still be a product.
    products = rng.randint(0, min(difficulty.products_max, (operations + 1) // 2))
    term_count = operations - products + 1
    places_of_products = set(rng.sample(range(term_count), products))
    terms: list[Term] = []
    total = 0
    for place in range(term_count):
        factors = _draw_factors(rng, difficulty, is_product=place in places_of_products)
        value = Term(sign=1, factors=factors).value
        signs = [s for s in (1, -1) if 0 <= total + s * value <= difficulty.largest_value]
        if place == 0:
            signs = [1]
        while not signs:  # neither sign keeps the total in range: draw smaller numbers until one does
            factors = _draw_factors(rng, difficulty, is_product=place in places_of_products)
            value = Term(sign=1, factors=factors).value
            signs = [s for s in (1, -1) if 0 <= total + s * value <= difficulty.largest_value]
        sign = rng.choice(signs)
        terms.append(Term(sign=sign, factors=factors))
        total += sign * value
    return Expression(terms=tuple(terms))


def _draw_factors(rng: random.Random, difficulty: Difficulty, *, is_product: bool) -> tuple[int, ...]:
    if is_product:
        return rng.randint(2, difficulty.largest_factor), rng.randint(2, difficulty.largest_multiplicand)
    return (rng.randint(2, difficulty.largest_operand),)


def draw_from_split(rng: random.Random, difficulty: Difficulty, *, reserved: bool) -> Iterator[Expression]:
    """Yields an endless stream of random problems from one side of the split; repeats are possible.

    Args:
        rng: The source of randomness.
        difficulty: The range of lengths and numbers.
        reserved: True for the experiments' side, False for the side that training text is made of.

    Raises:
        ValueError: If the side has no problem of this difficulty: none was found in `DRAWS_BEFORE_GIVING_UP` draws.
    """
    idle = 0
    while idle < DRAWS_BEFORE_GIVING_UP:
        expression = draw_expression(rng, difficulty)
        idle += 1
        if is_reserved(expression) == reserved:
            idle = 0
            yield expression
    side = "experiments'" if reserved else "training"
    raise ValueError(f"no problem of this difficulty is on the {side} side of the split; allow more or larger numbers")
