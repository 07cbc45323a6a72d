"""Reads problems from a JSONL file; every error message names file and line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3i import InputError, Problem, read_json_lines
from m3i.problems.canonical import canonical_id, canonical_text

FIELDS = ("prompt", "answer", "steps")


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A problem and its place in a file."""

    problem: Problem
    file: Path
    line: int
    """From 1."""

    @property
    def where(self) -> str:
        """File and line, for people."""
        return f"{self.file}, line {self.line}"


def read_problems(file: Path, *, names: bool) -> list[Placed]:
    """Returns the problems of a file, in its order. Blank lines are skipped.

    Args:
        file: One JSON object per line: `prompt` (text), `answer` (text or a number), optionally `steps` (a list of
            texts).
        names: Whether prompts that differ only in capitalised words are one problem.

    Raises:
        InputError: The file cannot be read or has no problem, a line is not such an object, or two lines are the same
            problem in canonical form.
    """
    placed: dict[str, Placed] = {}
    for line, record in read_json_lines(file):
        problem = _problem(f"{file}, line {line}", record, names)
        first = placed.get(problem.id)
        if first is not None:
            raise InputError(
                f"{file}, lines {first.line} and {line}: the same problem twice ({_same(first.problem, problem)})"
            )
        placed[problem.id] = Placed(problem=problem, file=file, line=line)
    if not placed:
        raise InputError(
            f'{file}: no problems; give one JSON object per line, such as {{"prompt": "2+2=?", "answer": "4"}}'
        )
    return list(placed.values())


def require_disjoint(train: list[Placed], held_out: list[Placed]) -> None:
    """Raises InputError, naming every file and line, if a problem is on both sides."""
    by_id = {p.problem.id: p for p in train}
    shared = [(by_id[p.problem.id], p) for p in held_out if p.problem.id in by_id]
    if shared:
        shown = "; ".join(f"{a.where} and {b.where}" for a, b in shared[:5])
        more = f"; and {len(shared) - 5} more" if len(shared) > 5 else ""
        raise InputError(
            f"train and held-out problems overlap: {shown}{more} ({_same(shared[0][0].problem, shared[0][1].problem)})"
        )


def _problem(where: str, record: Any, names: bool) -> Problem:
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object with 'prompt' and 'answer', got {json.dumps(record)[:60]}")
    missing = [key for key in ("prompt", "answer") if key not in record]
    if missing:
        raise InputError(
            f"{where}: lacks {' and '.join(map(repr, missing))}; it has {', '.join(map(repr, record)) or 'nothing'}"
        )
    unknown = sorted(record.keys() - set(FIELDS))
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; expected {', '.join(FIELDS)}")
    prompt, answer, steps = record["prompt"], record["answer"], record.get("steps", [])
    _require(where, "prompt", prompt, isinstance(prompt, str) and bool(prompt.strip()), "text that is not blank")
    number = isinstance(answer, (int, float)) and not isinstance(answer, bool)
    text = isinstance(answer, str) and bool(answer.strip())
    _require(where, "answer", answer, number or text, "text that is not blank, or a number")
    lines = isinstance(steps, list) and all(isinstance(step, str) for step in steps)
    _require(where, "steps", steps, lines, "a list of texts")
    return Problem(
        id=canonical_id(prompt, names=names),
        prompt=prompt,
        answer=str(answer).strip(),
        steps=tuple(steps),
        data={"canonical": canonical_text(prompt, names=names)},
    )


def _require(where: str, field: str, value: Any, ok: bool, expected: str) -> None:
    if not ok:
        raise InputError(f"{where}: '{field}' must be {expected}, got {json.dumps(value)[:60]}")


def _same(a: Problem, b: Problem) -> str:
    if a.prompt == b.prompt:
        return "equal prompts"
    return f"the canonical form of both prompts is {a.data['canonical'][:60]!r}"
