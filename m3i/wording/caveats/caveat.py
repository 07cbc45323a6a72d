"""What a rule reads, and the caveat that it yields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]
Caveat = dict[str, str]


def caveat(name: str, title: str, text: str, *, major: bool = False) -> Caveat:
    """One caveat; a `major` one limits the headline, the others are for careful readers."""
    return {"name": name, "title": title, "text": text, "weight": "major" if major else "minor"}


def first_judge(result: Result) -> Mapping[str, Any]:
    """The judge whose verdicts decide the headline."""
    judge: Mapping[str, Any] = next(iter(result["judges"].values()))
    return judge


def tally(counts: Mapping[str, int], limit: int = 4) -> str:
    """`3 × one reason; 2 × another`."""
    return "; ".join(f"{n} × {why}" for why, n in list(counts.items())[:limit])
