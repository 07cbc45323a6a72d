"""Reads a GGUF file's header in a tenth of a second; `gguf`'s own reader maps each vocabulary piece and takes seconds.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little endian).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """Metadata and tensors of a GGUF file."""

    values: dict[str, Any]
    """Key → scalar, text, or list of these."""
    shapes: dict[str, tuple[int, ...]]
    """Tensor → shape, rows first (the file stores it reversed)."""


def read_gguf_header(path: Path) -> GgufHeader:
    """Returns a file's header. Raises ValueError unless it is a complete GGUF file of version 2 or 3."""
    with path.open("rb") as file:
        cursor = _Cursor(file.read(64 * 1024 * 1024))
    try:
        magic, version, n_tensors, n_values = cursor.unpack("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"not a GGUF file of version 2 or 3 (it begins with {magic!r}, version {version})")
        values = {cursor.text(): cursor.value(cursor.unpack("I")[0]) for _ in range(n_values)}
        shapes = {}
        for _ in range(n_tensors):
            name, n_dimensions = cursor.text(), cursor.unpack("I")[0]
            shapes[name] = tuple(reversed(cursor.unpack(f"{n_dimensions}Q")))
            cursor.unpack("IQ")  # type and offset
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"its header is damaged or cut off ({error})") from None
    return GgufHeader(values=values, shapes=shapes)


class _Cursor:
    """A position in the header's bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def unpack(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return found

    def text(self) -> str:
        (length,) = self.unpack("Q")
        if length > len(self.data) - self.at:
            raise struct.error("a text extends past the end")
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.unpack(_SCALARS[kind])[0]
        item, count = self.unpack("IQ")
        if item in _SCALARS:
            return list(self.unpack(f"{count}{_SCALARS[item]}"))
        return [self.value(item) for _ in range(count)]
