"""The problems stage: draws problems and checks that no split is empty and no problem occurs twice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import ProblemSet
from m3i.component import resolved_fields
from m3i.errors import StageError
from m3i.interfaces import ProblemSource, Tick

if TYPE_CHECKING:
    from m3i.stages.context import RunContext

_SHOWN = 60


def run(context: RunContext) -> ProblemSet:
    """Returns train and held-out problems, disjoint in canonical form."""
    source = context.experiment.problems

    def work(folder: Path, tick: Tick) -> ProblemSet:
        return make_problem_set(source)

    return context.make(
        ProblemSet,
        "problems",
        work,
        component=("problems", source),
        made=lambda a: f"{len(a.train)} train, {len(a.held_out)} held-out",
    )


def make_problem_set(source: ProblemSource) -> ProblemSet:
    """Draws the source's problems and checks them. The artifact has no id and no parents yet.

    Raises:
        StageError: A split is empty or not of the size asked for, two problems share an id or a prompt, or a problem is
            in both splits. The message shows both problems.
    """
    train, held_out = (tuple(side) for side in source.draw())
    name = type(source).__name__
    options = resolved_fields(source)
    for side, problems in (("train", train), ("held_out", held_out)):
        if not problems:
            raise StageError(f"problem source {name} drew no {side} problems; check its options")
        wanted = options.get(f"n_{side}")
        if isinstance(wanted, int) and wanted != len(problems):
            raise StageError(f"problem source {name} drew {len(problems)} {side} problems, but n_{side} = {wanted}")
    sides = [("train", i, p) for i, p in enumerate(train)] + [("held-out", i, p) for i, p in enumerate(held_out)]
    by_id: dict[str, str] = {}
    by_prompt: dict[str, str] = {}
    for side, i, problem in sides:
        place = f"{side} problem {i} ({_short(problem.prompt)})"
        first = by_id.setdefault(problem.id, place)
        if first is not place:
            raise StageError(
                f"problem source {name} drew one problem twice: {first} and {place} share the id {problem.id}"
            )
        first = by_prompt.setdefault(" ".join(problem.prompt.split()), place)
        if first is not place:
            raise StageError(f"problem source {name} drew one prompt twice, under two ids: {first} and {place}")
    return ProblemSet(train=train, held_out=held_out)


def _short(prompt: str) -> str:
    line = " ".join(prompt.split())
    return repr(line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "...")
