"""The problem source `reasoning_gym`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

from m3i import Component, ConfigError, Problem, Verification, option, require
from m3i.problems.answers import check_rule, read_answer
from m3i.problems.canonical import canonical_id, canonical_text

from .steps import first_wrong_step
from .tasks import open_task

_IDLE_DRAWS = 1000
"""Consecutive draws of one task without a new problem after which its problems count as used up."""


@dataclass(kw_only=True)
class ReasoningGymProblems(Component):
    """Problems from one or several of reasoning-gym's tasks, checked by the tasks' own verifiers.

    A problem's side of the train / held-out split depends only on its canonical text, whatever the seed. Source:
    Reasoning Gym, 2505.24760.
    """

    libraries: ClassVar[tuple[str, ...]] = ("reasoning-gym",)

    task: str = "chain_sum"
    """A task of reasoning-gym, or several joined by '+' (`chain_sum+gcd`) with equal shares."""
    config: dict[str, Any] = option(factory=dict)
    """The task's own options, e.g. `{max_terms: 3, max_digits: 1}`; with several tasks, one such mapping per task."""
    n_train: int = 80
    """Problems to trace, audit and train on, ≥ 1."""
    n_held_out: int = 60
    """Problems to evaluate on, ≥ 1."""
    seed: int = 0
    """Seed of the draw."""
    prompt: str = "{question}"
    """What the target is asked: `{question}`, and any plain field of the task's metadata, such as `{expression}`."""
    answer: str = "last_number"
    """How the answer is read from a completion: last_number, last_word, last_line, whole, boxed, tag, `after:MARKER` or
    `pattern:REGEX`."""
    min_score: float = 1.0
    """Minimum score (0 to 1) from the task's verifier for an answer to be correct."""
    check_steps: bool = True
    """Recompute equations such as `15 + 9 = 24` in incorrect completions; the first wrong one is the first error."""
    exclude: list[str] = option(factory=list)
    """Prompts never to draw, however they are written: those that the target is shown as worked examples."""

    def __post_init__(self) -> None:
        """Checks the values; the tasks' own options are checked when problems are drawn."""
        require(self.n_train >= 1, "problems.n_train", self.n_train, "an integer ≥ 1")
        require(self.n_held_out >= 1, "problems.n_held_out", self.n_held_out, "an integer ≥ 1")
        require(0 < self.min_score <= 1, "problems.min_score", self.min_score, "a number in (0, 1]")
        require(all(self.tasks()), "problems.task", self.task, "names joined by '+'")
        require(len(set(self.tasks())) == len(self.tasks()), "problems.task", self.task, "each name once")
        if len(self.tasks()) > 1:
            expected = f"a mapping for each of {', '.join(self.tasks())}"
            by_task = set(self.config) <= set(self.tasks()) and all(isinstance(c, dict) for c in self.config.values())
            require(by_task, "problems.config", self.config, expected)
        check_rule("problems.answer", self.answer)

    def tasks(self) -> list[str]:
        """The tasks' names."""
        return self.task.split("+")

    def draw(self) -> tuple[list[Problem], list[Problem]]:
        """Returns train and held-out problems: distinct in canonical form, equal shares of every task, tasks in turn.

        Raises:
            ConfigError: No such task or option, or a task with too few distinct problems.
        """
        excluded = {canonical_id(prompt) for prompt in self.exclude}
        sides: list[list[list[Problem]]] = [[], []]
        n_tasks = len(self.tasks())
        for i, task in enumerate(self.tasks()):
            counts = [(n + n_tasks - 1 - i) // n_tasks for n in (self.n_train, self.n_held_out)]
            for side, problems in zip(sides, self._draw_task(task, counts, excluded), strict=True):
                side.append(problems)
        train, held_out = (_in_turn(side) for side in sides)
        return train, held_out

    def _draw_task(self, task: str, counts: list[int], excluded: set[str]) -> list[list[Problem]]:
        dataset = self._dataset(task)
        drawn: list[dict[str, Problem]] = [{}, {}]
        index = idle = 0
        while any(len(side) < count for side, count in zip(drawn, counts, strict=True)):
            problem = self._problem(task, index, dataset[index])
            side = int(problem.id[-1], 16) % 2  # by canonical text alone: a problem never changes sides
            index, idle = index + 1, idle + 1
            if problem.id not in excluded | drawn[side].keys() and len(drawn[side]) < counts[side]:
                drawn[side][problem.id] = problem
                idle = 0
            if idle > _IDLE_DRAWS:
                raise ConfigError(
                    f"reasoning_gym task {task!r} gave only {len(drawn[0])} train and {len(drawn[1])} held-out "
                    f"problems that differ, but {counts[0]} and {counts[1]} were requested; "
                    "request fewer, or widen problems.config"
                )
        return [list(side.values()) for side in drawn]

    def _problem(self, task: str, index: int, entry: dict[str, Any]) -> Problem:
        plain = {k: v for k, v in entry["metadata"].items() if isinstance(v, (str, int, float))}
        fields = {**plain, "question": str(entry["question"]).strip()}
        try:
            prompt = self.prompt.format_map(fields)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise ConfigError(
                f"problems.prompt = {self.prompt!r} does not fit task {task!r} ({error!r}); "
                f"fields: {', '.join(sorted(fields))}"
            ) from None
        return Problem(
            id=canonical_id(prompt),
            prompt=prompt,
            answer="" if entry["answer"] is None else str(entry["answer"]),
            data={"task": task, "index": index, "canonical": canonical_text(prompt)},
        )

    def verify(self, problem: Problem, completion: str) -> Verification:
        """Checks the answer with the task's own verifier, and finds the first equation that does not hold.

        If the completion up to that equation, with the equation corrected, answers the problem, it is the corrected
        completion.
        """
        answer = read_answer(completion, self.answer)
        if self._is_right(problem, answer):
            return Verification(correct=True, answer=answer)
        error = first_wrong_step(completion) if self.check_steps else None
        corrected = completion[: error.start] + error.corrected if error else None
        if corrected is not None and not self._is_right(problem, read_answer(corrected, self.answer)):
            corrected = None
        return Verification(correct=False, answer=answer, first_error=error, corrected=corrected)

    def _is_right(self, problem: Problem, answer: str | None) -> bool:
        return answer is not None and self._score(problem, answer) >= self.min_score

    def _score(self, problem: Problem, answer: str) -> float:
        dataset = self._dataset(problem.data["task"])
        entry = dataset[problem.data["index"]]
        try:
            return float(dataset.score_answer(answer, entry))
        except Exception:  # some verifiers raise on text that is not an answer at all; it is incorrect
            return 0.0

    def _dataset(self, task: str) -> Any:
        config = self.config if len(self.tasks()) == 1 else self.config.get(task, {})
        # reasoning-gym makes item i from seed + i: spread our seeds so that their items do not overlap.
        digest = hashlib.sha256(f"{self.seed} {task}".encode()).digest()
        return open_task(task, dict(config), int.from_bytes(digest[:6], "big"))


def _in_turn(columns: list[list[Problem]]) -> list[Problem]:
    """Takes one problem of each task after the other."""
    return [column[i] for i in range(max(map(len, columns))) for column in columns if i < len(column)]
