"""The base class of all artifacts, and how their fields are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

RECORDS = {"storage": "jsonl"}
ARRAYS = {"storage": "safetensors"}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Base class of all artifacts; see m3i.store.codec for how fields are written."""

    kind: ClassVar[str]
    id: str = field(default="", metadata={"storage": "none"})
    parents: tuple[str, ...] = field(default=(), metadata={"storage": "none"})
    folder: Path = field(default=Path(), metadata={"storage": "none"})
    """The artifact's folder in the store; file names in its fields are relative to it."""
