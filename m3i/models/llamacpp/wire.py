"""Messages between a LlamaSession and its worker: a JSON header, then the arrays that it lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

Arrays = dict[str, np.ndarray]


class Refused(Exception):
    """llama.cpp refused a request; the text says why."""


def write_message(pipe: IO[bytes], header: Mapping[str, Any], arrays: Arrays) -> None:
    """Writes one message: header length (8 bytes, little endian), header, array bytes in the order of the header."""
    listed = [[name, str(array.dtype), list(array.shape)] for name, array in arrays.items()]
    head = json.dumps({**header, "arrays": listed}).encode()
    pipe.write(len(head).to_bytes(8, "little"))
    pipe.write(head)
    for array in arrays.values():
        pipe.write(np.ascontiguousarray(array).tobytes())
    pipe.flush()


def read_message(pipe: IO[bytes]) -> tuple[dict[str, Any], Arrays]:
    """Reads the next message. Raises EOFError if the other side is gone."""
    header: dict[str, Any] = json.loads(_read_exactly(pipe, int.from_bytes(_read_exactly(pipe, 8), "little")))
    arrays: Arrays = {}
    for name, dtype, shape in header.pop("arrays"):
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(_read_exactly(pipe, n_bytes), dtype=dtype).reshape(shape)
    return header, arrays


def _read_exactly(pipe: IO[bytes], n_bytes: int) -> bytes:
    data = pipe.read(n_bytes)
    if len(data) != n_bytes:
        raise EOFError
    return data
