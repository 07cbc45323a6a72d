"""The problem source `arithmetic`."""

import random
from dataclasses import dataclass, fields

from m3i import Component, ConfigError, Problem, StepError, Verification, option, require

from .expressions import Expression, canonical, canonical_hash, render_completion, render_prompt, solve
from .generate import Difficulty, draw_from_split
from .steps import check_solution, repair_solution

_IDLE_DRAWS = 2000
"""Consecutive draws without a new problem after which all problems of a difficulty count as taken. Half of the draws
are on the other side; the rest are new unless nearly everything is taken."""


@dataclass(kw_only=True)
class ArithmeticProblems(Component):
    """Random sums and products worked out step by step, such as `48+7*6-15=?`.

    Problems come from the experiments' side of a split by hash, so that no shipped target was trained on any of them;
    the verifier recomputes each written step.
    """

    n_train: int = option(160)
    """Problems to trace, audit and train on, ≥ 1."""
    n_held_out: int = option(120)
    """Problems to evaluate on, ≥ 1; none of them is a train problem written differently."""
    seed: int = option(0)
    """Seed of the draw."""
    operations_min: int = option(3)
    """Minimum number of operations per problem, ≥ 1."""
    operations_max: int = option(5)
    """Maximum number of operations per problem, ≥ `operations_min`."""
    products_max: int = option(2)
    """Maximum number of multiplications per problem, ≥ 0; each is one of the operations."""
    largest_operand: int = option(99)
    """Largest number that is added or subtracted as written, ≥ 2."""
    largest_factor: int = option(9)
    """Largest left factor of a multiplication, ≥ 2."""
    largest_multiplicand: int = option(19)
    """Largest right factor of a multiplication, ≥ 2."""
    largest_value: int = option(999)
    """Largest intermediate result and answer, ≥ every single term; no value is ever negative."""

    def __post_init__(self) -> None:
        """Checks the options."""
        require(self.n_train >= 1, "problems.n_train", self.n_train, "an integer ≥ 1")
        require(self.n_held_out >= 1, "problems.n_held_out", self.n_held_out, "an integer ≥ 1")
        try:
            self.difficulty()
        except ValueError as error:
            raise ConfigError(f"problems: {error}") from None

    def difficulty(self) -> Difficulty:
        """The options that say how hard the problems are."""
        return Difficulty(**{f.name: getattr(self, f.name) for f in fields(Difficulty)})

    def draw(self) -> tuple[list[Problem], list[Problem]]:
        """Returns train and held-out problems: distinct in canonical form, reserved for experiments.

        The train problems do not depend on `n_held_out`, nor the held-out ones on `n_train`: each side draws from its
        own half of the hash space with its own generator.
        """
        try:
            return self._draw_side("train", self.n_train, odd=0), self._draw_side("held-out", self.n_held_out, odd=1)
        except ValueError as error:
            raise ConfigError(f"problems: {error}") from None

    def _draw_side(self, name: str, count: int, *, odd: int) -> list[Problem]:
        stream = draw_from_split(random.Random(f"{self.seed} {name}"), self.difficulty(), reserved=True)
        drawn: dict[str, Problem] = {}
        idle = 0
        while len(drawn) < count:
            expression = next(stream)
            key = canonical_hash(expression)
            # The parity of the hash decides the side: every problem has one side, whatever the seed and the counts.
            if int(key[-1], 16) % 2 != odd or key in drawn:
                idle += 1
                if idle > _IDLE_DRAWS:
                    raise ConfigError(
                        f"problems: {count} {name} problems were requested, but only {len(drawn)} distinct {name} "
                        "problems of this difficulty exist; request fewer, or raise problems.operations_max or "
                        "largest_operand"
                    )
                continue
            idle = 0
            drawn[key] = as_problem(expression)
        return list(drawn.values())

    def verify(self, problem: Problem, completion: str) -> Verification:
        """Checks whether every step and the answer are correct, and where the first wrong step is."""
        check = check_solution(problem.prompt, completion)
        wrong = check.first_wrong
        return Verification(
            correct=check.right,
            answer=None if check.answer is None else str(check.answer),
            first_error=None
            if wrong is None
            else StepError(
                start=wrong.start, end=wrong.end, kind=wrong.kind.value, corrected=wrong.corrected, reason=wrong.reason
            ),
            corrected=repair_solution(problem.prompt, completion),
        )


def as_problem(expression: Expression) -> Problem:
    """Returns the expression as the core's `Problem`; its id is the hash of its canonical form."""
    return Problem(
        id=canonical_hash(expression),
        prompt=render_prompt(expression),
        answer=str(expression.value),
        steps=solve(expression)[:-1],
        solution=render_completion(expression),
        data={"canonical": canonical(expression)},
    )
