"""The graft: the base GGUF with updates added to the trained tensors and every other byte unchanged.

A grafted tensor is the *file's own* tensor, dequantised, plus scaling · B A, mapped to the file's layout, so that tuned
minus base is the update and nothing else. If the graft started from the target's full-precision weights, it would also
repair a quantised tensor, an effect that does not come from training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from m3i import ConfigError

from .architectures import Architecture, Config
from .layout import GGUFFile, TensorPlace, copy_with_types, decode, encode, write_tensor
from .updates import Update


class GraftType(str, Enum):
    """Type of the grafted tensors."""

    f32 = "f32"
    f16 = "f16"
    keep = "keep"


@dataclass(frozen=True)
class Loss:
    """What storing an update in the file's type costs."""

    erased_share: float
    """Share of the update's nonzero elements that leave the stored value unchanged (under half a step)."""
    relative_error: float
    """|stored update − update| / |update|, Frobenius norms."""


class Graft:
    """A grafted file whose trained tensors can be rewritten in place.

    Args:
        base: The base file.
        architecture: Its mapping.
        config: The target's Hugging Face configuration.
        updates: Parameter → update.
        destination: The file to write; at first it holds no update.
        graft_type: Type of the grafted tensors; `keep` takes the base tensor's, or F16 where that cannot be written.
        twin_of: A graft whose stored values this one is to hold in F32. The destination is then the base's twin
            (m3i_gguf.twin), and is written in place.

    Raises:
        ConfigError: The base file lacks a tensor, or has it in another shape.
    """

    def __init__(
        self,
        base: GGUFFile,
        architecture: Architecture,
        config: Config,
        updates: Mapping[str, Update],
        destination: Path,
        graft_type: GraftType,
        twin_of: Graft | None = None,
    ) -> None:
        self.path = destination
        self._base = base
        self._rounded_as: Mapping[str, Any] = twin_of.kinds if twin_of else {}
        self._updates = updates
        self._pieces = {name: architecture.pieces(config, name) for name in updates}
        self.kinds: dict[str, Any] = {
            piece.name: graft_kind(self._place(base, name, piece.name), graft_type)
            for name, pieces in self._pieces.items()
            for piece in pieces
        }
        for name, update in updates.items():
            for piece in self._pieces[name]:
                shape = piece.take(np.broadcast_to(np.float32(0), (len(update.b), update.a.shape[1]))).shape
                if shape != base.tensors[piece.name].shape:
                    raise ConfigError(
                        f"{name}: the update becomes {piece.name} of shape {shape}, the base file has "
                        f"{base.tensors[piece.name].shape}; adapter and base file belong to different models"
                    )
        self._places = GGUFFile(destination).tensors if twin_of else copy_with_types(base, destination, self.kinds)
        self._laid: dict[str, float] = dict.fromkeys(updates, float("nan"))
        self.lay({})

    def lay(self, factors: Mapping[str, float]) -> None:
        """Makes the file hold factor · update in every trained tensor; the factor is 0 for those not named."""
        for name in self._updates:
            factor = factors.get(name, 0.0)
            if self._laid[name] != factor:
                for piece in self._pieces[name]:
                    place = self._places[piece.name]
                    write_tensor(self.path, place, encode(self._merged(name, piece, factor), place.kind))
                self._laid[name] = factor

    def types(self, name: str) -> str:
        """Types of a parameter's tensors in the grafted file, and in the base where they differ."""
        texts = []
        for piece in self._pieces[name]:
            old, new = self._base.tensors[piece.name].kind.name, self.kinds[piece.name].name
            texts.append(new if old == new else f"{new} (base {old})")
        return " + ".join(dict.fromkeys(texts))

    def loss(self, name: str) -> Loss:
        """The cost of storing this update in the types of its grafted tensors."""
        unchanged = n_nonzero = 0
        error = norm = 0.0
        for piece in self._pieces[name]:
            place = self._places[piece.name]
            update = piece.take(self._updates[name].delta())
            before = self._stored(place, self._merged(name, piece, 0.0))
            stored = self._stored(place, self._merged(name, piece, 1.0)).astype(np.float64) - before
            nonzero = update != 0
            n_nonzero += int(nonzero.sum())
            unchanged += int((stored[nonzero] == 0).sum())
            error += float(((stored - update) ** 2).sum())
            norm += float((update.astype(np.float64) ** 2).sum())
        return Loss(unchanged / max(n_nonzero, 1), float(np.sqrt(error / norm)) if norm else 0.0)

    def _stored(self, place: TensorPlace, values: np.ndarray) -> np.ndarray:
        return decode(encode(values, place.kind), place.shape, place.kind)

    def _merged(self, name: str, piece: Any, factor: float) -> np.ndarray:
        values = self._base.values(piece.name)
        if factor != 0.0:
            values = np.asarray(values + factor * piece.take(self._updates[name].delta()), dtype=np.float32)
        kind = self._rounded_as.get(piece.name)
        return values if kind is None else decode(encode(values, kind), values.shape, kind)

    @staticmethod
    def _place(base: GGUFFile, parameter: str, tensor: str) -> TensorPlace:
        if tensor not in base.tensors:
            raise ConfigError(f"{base.path} has no tensor {tensor} for {parameter}; convert the base again")
        return base.tensors[tensor]


def graft_kind(place: TensorPlace, graft_type: GraftType) -> Any:
    """The GGML type of a grafted tensor; routers are F32 in every file, as in llama.cpp."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    if graft_type is GraftType.f32 or place.kind == kinds.F32:
        return kinds.F32
    if graft_type is GraftType.f16:
        return kinds.F16
    try:
        encode(np.zeros(place.shape[-1], dtype=np.float32), place.kind)
    except NotImplementedError:  # K-quants: gguf reads them and cannot write them
        return kinds.F16
    return place.kind
