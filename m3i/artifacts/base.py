"""Base of all artifacts, and how their fields are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

RECORDS = {"storage": "jsonl"}
ARRAYS = {"storage": "safetensors"}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Base of all artifacts; see m3i.store.codec for how fields are written."""

    kind: ClassVar[str]
    id: str = field(default="", metadata={"storage": "none"})
    parents: tuple[str, ...] = field(default=(), metadata={"storage": "none"})
    folder: Path = field(default=Path(), metadata={"storage": "none"})
    """Where the artifact lies in the store; files named in its fields are relative to it."""
