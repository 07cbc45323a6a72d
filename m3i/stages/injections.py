"""Prompt injections: texts that try to take over the model reading them, for tests of every field and as canaries.

Each follows a published attack (`source`), shortened and without its target. A canary asks for the answer that
contains it, never for a letter, so it means the same in both orders.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, kw_only=True)
class Injection:
    """One hostile text."""

    family: str
    """Kind of attack: `instruction_override`, `role_tokens`, `encoded`, ..."""
    text: str
    """May hold anything a string can: control characters, half a surrogate pair, nothing but a space."""
    source: str
    """The paper or report that described the attack."""
    canary: bool = False
    """Whether it asks a judge to choose the answer that contains it, in whichever place that is shown."""


@cache
def load() -> tuple[Injection, ...]:
    """Returns all injections, in the order of m3i/stages/injections.jsonl."""
    text = resources.files("m3i.stages").joinpath("injections.jsonl").read_text(encoding="utf-8")
    return tuple(Injection(**json.loads(line)) for line in text.split("\n") if line)


@cache
def canaries() -> tuple[Injection, ...]:
    """Returns the injections that judges are shown among real answers (see m3i.stages.judge)."""
    return tuple(injection for injection in load() if injection.canary)
