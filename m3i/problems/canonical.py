"""Decides when two prompts are the same problem, and splits a pool of problems by content hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import TypeVar

from m3i.artifacts import Problem
from m3i.errors import ConfigError

T = TypeVar("T", bound=Problem)

_NUMBER = r"\d+(?:\.\d+)?"
_EXPRESSION = re.compile(rf"(?<![\w.])-?{_NUMBER}(?:\s*[-+*/×÷]\s*\(?-?{_NUMBER}\)?)+(?!\w|\.\d)")
_SUM = re.compile(rf"-?{_NUMBER}(?:[-+]{_NUMBER})+")
_PRODUCT = re.compile(rf"{_NUMBER}(?:\*{_NUMBER})+")
_NAME = re.compile(r"(?<![^\W\d_])[A-Z][a-z]+(?![^\W\d_])")


def split_by_hash(problems: Sequence[T], n_train: int, n_held_out: int, seed: int) -> tuple[list[T], list[T]]:
    """Returns two disjoint samples of one pool; only the problems' ids decide, not their order in the pool.

    Args:
        problems: The pool; ids are unique.
        n_train: Size of the first sample.
        n_held_out: Size of the second sample.
        seed: Seed of the split.

    Returns:
        Both samples, each in the order of the pool.

    Raises:
        ConfigError: The pool is smaller than both samples together.
    """
    if n_train + n_held_out > len(problems):
        raise ConfigError(
            f"{len(problems)} problems are too few for {n_train} train and {n_held_out} held-out problems; lower "
            "problems.n_train or problems.n_held_out"
        )
    ranked = sorted(problems, key=lambda p: hashlib.sha256(json.dumps([seed, p.id]).encode()).digest())
    train = {p.id for p in ranked[:n_train]}
    held_out = {p.id for p in ranked[n_train : n_train + n_held_out]}
    return [p for p in problems if p.id in train], [p for p in problems if p.id in held_out]


def canonical_text(text: str, *, names: bool = False) -> str:
    """Returns the canonical form of a prompt; two prompts with the same form are the same problem.

    White space is collapsed, case is folded, and sums or products of plain numbers are sorted, since they commute
    (`5 + 3 - 2` and `3-2+5` are the same; a mixed expression such as `2 + 3 * 4` keeps its order). Any `=`, `?`, `.`,
    `:` or `!` at the end is dropped.

    Args:
        text: A prompt.
        names: Number capitalised words in order of appearance, so that prompts that differ only in names are one
            problem. Off by default: the capital of France and the capital of Spain would be one question.
    """
    if names:
        numbered: dict[str, str] = {}
        text = _NAME.sub(lambda m: numbered.setdefault(m.group(), f"name{len(numbered) + 1}"), text)
    collapsed = " ".join(text.split()).casefold()
    return _EXPRESSION.sub(lambda m: _commuted(m.group()), collapsed).rstrip(" =?.:!")


def canonical_id(text: str, *, names: bool = False) -> str:
    """Returns the SHA-256 of the canonical text, in hexadecimal."""
    return hashlib.sha256(canonical_text(text, names=names).encode()).hexdigest()


def _commuted(expression: str) -> str:
    squeezed = "".join(expression.split()).replace("×", "*")
    if _SUM.fullmatch(squeezed):
        terms = re.findall(rf"[-+]?{_NUMBER}", squeezed)
        return "".join(sorted(term if term[0] in "+-" else f"+{term}" for term in terms))
    if _PRODUCT.fullmatch(squeezed):
        return "*".join(sorted(squeezed.split("*")))
    return squeezed
