"""Writes an artifact's fields to a folder and reads them back: JSON, JSONL, safetensors; never pickle.

A field's metadata says where it goes: `RECORDS` to `<field>.jsonl` (one line per element),
`ARRAYS` to `arrays.safetensors`, everything else to `header.json`. Types are checked on reading,
so a badly edited file fails with the name of the field.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from m3i.artifacts import Artifact
from m3i.errors import StoreError

A = TypeVar("A", bound=Artifact)


def write(artifact: Artifact, folder: Path) -> None:
    """Writes every field of `artifact` into `folder`, which already holds the artifact's other files.

    Raises StoreError if a number is not finite: NaN has no place in a result.
    """
    header: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(artifact):
        value = getattr(artifact, field.name)
        storage = field.metadata.get("storage", "json")
        if storage == "json":
            header[field.name] = _adapter(type(artifact), field.name).dump_python(value, mode="json")
        elif storage == "jsonl":
            rows = _adapter(type(artifact), field.name).dump_python(value, mode="json")
            text = "".join(_dumps(row, field.name) + "\n" for row in rows)
            (folder / f"{field.name}.jsonl").write_text(text, encoding="utf-8")
        elif storage == "safetensors":
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise StoreError(_not_finite(f"{field.name} of a {artifact.kind}"))
            arrays[field.name] = np.ascontiguousarray(value)
    (folder / "header.json").write_text(_dumps(header, artifact.kind, indent=1) + "\n", encoding="utf-8")
    if arrays:
        from safetensors.numpy import save_file

        save_file(arrays, folder / "arrays.safetensors")


def read(cls: type[A], folder: Path, *, id: str, parents: tuple[str, ...]) -> A:
    """Returns the artifact that `write` put into `folder`. Raises StoreError with the field that cannot be read."""
    values: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    header = json.loads((folder / "header.json").read_text(encoding="utf-8"))
    for field in dataclasses.fields(cls):
        storage = field.metadata.get("storage", "json")
        name = field.name
        try:
            if storage == "json" and name in header:
                values[name] = _adapter(cls, name).validate_python(header[name])
            elif storage == "jsonl":
                lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
                values[name] = _adapter(cls, name).validate_python([json.loads(line) for line in lines if line])
            elif storage == "safetensors":
                if not arrays:
                    from safetensors.numpy import load_file

                    arrays = load_file(folder / "arrays.safetensors")
                values[name] = arrays[name]
        except (ValueError, KeyError) as error:
            raise StoreError(f"{folder}: field '{name}' of a {cls.kind} artifact cannot be read: {error}") from error
    return cls(**values, id=id, parents=parents, folder=folder)


_ADAPTERS: dict[tuple[type[Any], str], Any] = {}


def _adapter(cls: type[Any], name: str) -> Any:
    if (cls, name) not in _ADAPTERS:
        from pydantic import TypeAdapter

        _ADAPTERS[cls, name] = TypeAdapter(typing.get_type_hints(cls)[name])
    return _ADAPTERS[cls, name]


def _dumps(value: Any, what: str, indent: int | None = None) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError as error:
        raise StoreError(_not_finite(f"a {what}")) from error
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, e.g. from a user's own JSONL, can only be written as an escape
        return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent)
    return text


def _not_finite(what: str) -> str:
    return f"{what} artifact holds a number that is not finite; the artifact is not stored"
