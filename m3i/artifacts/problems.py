"""Problems, and a verifier's result for a completion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from m3i.artifacts.base import RECORDS, Artifact


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One checkable problem."""

    id: str
    """Hash of the canonical form; problems that differ only in names, order or white space share it."""
    prompt: str
    """Text as the source states it, before any chat template."""
    answer: str
    """Reference answer."""
    steps: tuple[str, ...] = ()
    """Reference steps, verbatim, if the source has them."""
    solution: str = ""
    """A fully correct completion in the target's own format, if the source can write one."""
    data: dict[str, Any] = field(default_factory=dict)
    """What the source's own verifier needs; JSON values only."""


@dataclass(frozen=True, kw_only=True)
class StepError:
    """The first wrong step of a completion."""

    start: int
    """Character offset in the completion."""
    end: int
    kind: str
    """arithmetic, wrong_operand, skipped_step, wrong_answer, format, ..."""
    corrected: str
    """Correct text for [start, end)."""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A verifier's result for one completion."""

    correct: bool
    answer: str | None
    """The answer read from the completion; None if there is none."""
    first_error: StepError | None = None
    """None for sources without steps, and for correct completions."""
    corrected: str | None = None
    """The completion with the first wrong step and everything after it corrected, if the source can write it."""


@dataclass(frozen=True, kw_only=True)
class ProblemSet(Artifact):
    """Train and held-out problems, disjoint in canonical form."""

    kind: ClassVar[str] = "problems"
    train: tuple[Problem, ...] = field(metadata=RECORDS)
    held_out: tuple[Problem, ...] = field(metadata=RECORDS)
