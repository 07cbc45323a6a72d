"""What one MLflow run holds: parameters, metrics and tags, within MLflow's limits and without secrets."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from m3i.ledger.secrets import redact

IDENTITY = "m3i.id"
"""Tag by which a run is found again."""
LONGEST_KEY = 250
FORBIDDEN = re.compile(r"[^A-Za-z0-9_.\- ]")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number; `step` is a training step or the number of a draw."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The content of one MLflow run."""

    name: str
    identity: str
    """SHA-256 of what the run is made from; equal if the same result is logged twice."""
    created_ms: int
    """Time of the run. It stamps every metric, so that logging twice gives the same points."""
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


def key(name: str) -> str:
    """The name as MLflow accepts it; a name that had to be changed gets a hash, so that no two collide."""
    plain = FORBIDDEN.sub("_", name)
    if plain == name and len(plain) <= LONGEST_KEY:
        return plain
    return f"{plain[: LONGEST_KEY - 9]}.{hashlib.sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def text(value: object, longest: int) -> str:
    """The value as text without secrets, truncated to what MLflow accepts."""
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    words = redact(words).encode("utf-8", "backslashreplace").decode()
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every value of nested mappings with its dotted path; a list is one value, and so is an empty mapping."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def numbers(value: Any, prefix: str) -> list[Metric]:
    """Every number in a nested mapping as a metric; true and false as 1 and 0. Nulls and lists are left out."""
    return [Metric(name=path, value=float(v)) for path, v in leaves(value, prefix) if isinstance(v, (bool, int, float))]


def identity(parts: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def milliseconds(created: str) -> int:
    """`2026-11-22 13:30:00+0000` in milliseconds since 1970."""
    return int(datetime.strptime(created, "%Y-%m-%d %H:%M:%S%z").timestamp() * 1000)
