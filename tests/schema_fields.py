"""What a validated result.json or sweep.json holds, beside what its schema declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel


def sections(value: Any, path: str = "") -> Iterator[tuple[str, BaseModel]]:
    """Every section of a validated document with its place."""
    if isinstance(value, BaseModel):
        yield path, value
        inner: Any = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, dict):
        inner = value.items()
    else:
        inner = enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield from sections(item, f"{path}.{name}" if path else str(name))


def unknown_fields(document: BaseModel) -> list[str]:
    """Fields of a validated document that its schema does not declare."""
    return [f"{path}.{name}" for path, section in sections(document) for name in section.model_extra or ()]


def written_fields(document: BaseModel) -> set[str]:
    """`Model.field` of every declared field that a validated document holds, a null one only if it may be absent."""
    return {
        f"{type(section).__name__}.{name}" for _, section in sections(document) for name in section.model_fields_set
    }
