"""GGUF files as bytes: where each tensor is, and a copy with some tensors replaced and everything else untouched."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

HEADER_BYTES = 24
"""Magic, version, number of tensors, number of metadata entries."""
CHUNK = 1 << 24


@dataclass(frozen=True)
class TensorPlace:
    """One tensor of a file."""

    name: str
    shape: tuple[int, ...]
    """In numpy's order."""
    kind: Any
    """gguf.GGMLQuantizationType."""
    offset: int
    """Absolute, in bytes."""
    n_bytes: int


class GGUFFile:
    """A GGUF file on disk: its tensors' places and values."""

    def __init__(self, path: Path) -> None:
        import gguf

        self.path = path
        self._reader = gguf.GGUFReader(path)
        self.tensors = {
            t.name: TensorPlace(
                t.name, tuple(int(n) for n in t.shape[::-1]), t.tensor_type, int(t.data_offset), int(t.n_bytes)
            )
            for t in self._reader.tensors
        }
        self.alignment = int(self._reader.alignment)

    @cached_property
    def _data(self) -> dict[str, Any]:
        return {t.name: t.data for t in self._reader.tensors}

    @property
    def architecture(self) -> str:
        """`general.architecture`."""
        return str(self._reader.fields["general.architecture"].contents())

    def metadata_bytes(self) -> bytes:
        """All metadata, byte for byte as in the file."""
        first = min(int(t.field.offset) for t in self._reader.tensors)
        with self.path.open("rb") as file:
            file.seek(HEADER_BYTES)
            return file.read(first - HEADER_BYTES)

    def header(self) -> bytes:
        """The first 24 bytes."""
        with self.path.open("rb") as file:
            return file.read(HEADER_BYTES)

    def values(self, name: str) -> np.ndarray:
        """A tensor in float32, dequantised where it is quantised."""
        import gguf

        place = self.tensors[name]
        return np.asarray(gguf.dequantize(self._data[name], place.kind), dtype=np.float32).reshape(place.shape)

    def raw(self, name: str) -> bytes:
        """A tensor's bytes."""
        place = self.tensors[name]
        with self.path.open("rb") as file:
            file.seek(place.offset)
            return file.read(place.n_bytes)


def encode(values: np.ndarray, kind: Any) -> bytes:
    """A float32 tensor as bytes of a GGML type. Raises NotImplementedError for types that gguf cannot write."""
    import gguf

    return gguf.quantize(np.ascontiguousarray(values, dtype=np.float32), kind).tobytes()


def decode(data: bytes, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    """What `encode` wrote, in float32."""
    import gguf

    byte_shape = gguf.quant_shape_to_byte_shape(shape, kind)
    return np.asarray(
        gguf.dequantize(np.frombuffer(data, dtype=np.uint8).reshape(byte_shape), kind), dtype=np.float32
    ).reshape(shape)


def copy_with_types(base: GGUFFile, destination: Path, kinds: Mapping[str, Any]) -> dict[str, TensorPlace]:
    """Copies a file with room for some tensors in another type; metadata and all other tensors stay byte for byte.

    The tensors named in `kinds` are written as zeros; see `write_tensor`. The base file's order is kept.

    Returns:
        The places of all tensors in the new file.
    """
    import gguf

    places: dict[str, TensorPlace] = {}
    infos, offset = b"", 0
    for place in base.tensors.values():
        kind = kinds.get(place.name, place.kind)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        n_bytes = int(np.prod(place.shape)) // block * size
        label = place.name.encode()
        infos += len(label).to_bytes(8, "little") + label + len(place.shape).to_bytes(4, "little")
        infos += b"".join(n.to_bytes(8, "little") for n in reversed(place.shape))
        infos += int(kind).to_bytes(4, "little") + offset.to_bytes(8, "little")
        places[place.name] = TensorPlace(place.name, place.shape, kind, offset, n_bytes)
        offset += -(-n_bytes // base.alignment) * base.alignment
    head = base.header() + base.metadata_bytes() + infos
    start = -(-len(head) // base.alignment) * base.alignment
    with base.path.open("rb") as source, destination.open("wb") as file:
        file.write(head)
        for name, place in places.items():
            file.seek(start + place.offset)
            if name in kinds:
                file.write(bytes(place.n_bytes))
            else:
                _copy(source, file, base.tensors[name])
        file.truncate(start + offset)
    return {n: TensorPlace(n, p.shape, p.kind, start + p.offset, p.n_bytes) for n, p in places.items()}


def _copy(source: BinaryIO, file: BinaryIO, place: TensorPlace) -> None:
    source.seek(place.offset)
    left = place.n_bytes
    while left:
        data = source.read(min(left, CHUNK))
        file.write(data)
        left -= len(data)


def write_tensor(path: Path, place: TensorPlace, data: bytes) -> None:
    """Overwrites one tensor of a file."""
    assert len(data) == place.n_bytes, f"{place.name}: {len(data)} bytes for a place of {place.n_bytes}"
    with path.open("r+b") as file:
        file.seek(place.offset)
        file.write(data)


def count_identical(base: GGUFFile, tuned: Path) -> tuple[int, int]:
    """Returns (tensors equal to the base's in type and in every byte, all tensors)."""
    other = GGUFFile(tuned)
    same = sum(
        place.kind == other.tensors[name].kind and base.raw(name) == other.raw(name)
        for name, place in base.tensors.items()
    )
    return same, len(other.tensors)


def copy_whole(base: Path, destination: Path) -> None:
    """Copies a file byte for byte."""
    shutil.copyfile(base, destination)
