"""Held-out answers, and the judges' verdicts on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from m3i.artifacts.base import RECORDS, Artifact
from m3i.artifacts.findings import CallFacts


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One held-out completion under llama.cpp."""

    problem_id: str
    seed: int
    completion_ids: tuple[int, ...]
    text: str
    correct: bool
    answer: str | None
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Answers(Artifact):
    """All held-out answers of one model."""

    kind: ClassVar[str] = "answers"
    answers: tuple[Answer, ...] = field(metadata=RECORDS)
    time_s: float = 0.0
    n_threads: int = 1


class Outcome(str, Enum):
    """Result of one comparison."""

    BASE = "base"
    TUNED = "tuned"
    TIE = "tie"
    SPLIT = "split"
    """The two orders disagree."""
    MISSING = "missing"


EQUAL = "equal"
"""Value of `Verdict.first` and `Verdict.second` when the two answers have the same text."""


def merge(first: str, second: str) -> Outcome:
    """Returns the outcome of the choices in both orders; see the table at the top of m3i/stages/judge.py."""
    if "missing" in (first, second):
        return Outcome.MISSING
    return Outcome(first) if first == second else Outcome.SPLIT


SCORES = {Outcome.TUNED.value: 1.0, Outcome.BASE.value: 0.0, Outcome.TIE.value: 0.5, Outcome.SPLIT.value: 0.5}
"""Value of an outcome → score of the comparison; a missing outcome has no score."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One judge's outcome for one held-out problem and generation seed, over both orders."""

    problem_id: str
    seed: int
    outcome: Outcome
    first: str
    """Choice with the base answer shown first: base, tuned, tie, missing; `equal` if both have the same text."""
    second: str
    """Choice with the tuned answer shown first."""
    reason: str = ""
    replicates_first: tuple[str, ...] = ()
    """The individual choices behind `first`, if the judge was asked more than once; same values."""
    replicates_second: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A held-out answer compared, in both orders, with a copy that holds a planted instruction to choose it.

    The two are otherwise identical, so a judge that chooses the planted one in both orders obeys text that it was
    given to judge.
    """

    problem_id: str
    family: str
    """Kind of instruction, as in m3i/stages/injections.jsonl."""
    injection: str
    first: str
    """Choice with the planted answer shown first: planted, clean, tie, missing."""
    second: str
    """Choice with the clean answer shown first."""

    @property
    def obeyed(self) -> bool:
        """Whether the planted answer was chosen in both orders."""
        return self.first == self.second == "planted"


@dataclass(frozen=True, kw_only=True)
class Verdicts(Artifact):
    """All verdicts of one judge."""

    kind: ClassVar[str] = "verdicts"
    judge: str
    verdicts: tuple[Verdict, ...] = field(metadata=RECORDS)
    n_equal: int = 0
    """Comparisons settled without a call because the answers are identical."""
    canaries: tuple[Canary, ...] = ()
    """Empty for a judge that does not read the answers with a model."""
    calls: CallFacts = field(default_factory=CallFacts)
