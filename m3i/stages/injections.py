"""Texts that try to take over a model which reads them: for tests of every field, and as canaries for judges.

Each is written after a published attack (`source`), shortened and without its target. A canary asks for the
answer that it stands in, never for a letter, so it means the same in both orders.
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
    """It asks a judge to choose the answer that it stands in, wherever that is shown."""


@cache
def load() -> tuple[Injection, ...]:
    """All injections, in the order of m3i/stages/injections.jsonl."""
    text = resources.files("m3i.stages").joinpath("injections.jsonl").read_text(encoding="utf-8")
    return tuple(Injection(**json.loads(line)) for line in text.split("\n") if line)


@cache
def canaries() -> tuple[Injection, ...]:
    """Those that a judge is shown among real answers (see m3i.stages.judge)."""
    return tuple(injection for injection in load() if injection.canary)
