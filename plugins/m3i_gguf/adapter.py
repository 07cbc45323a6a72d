"""A PEFT adapter as a llama.cpp LoRA file: small, but llama.cpp applies it only where its graph supports it.

On loading, llama.cpp checks an adapter's names and shapes, but never whether a tensor is used: a graph that multiplies
a weight with plain `ggml_mul_mat` silently ignores the adapter on it. The certificate measures what is applied;
`applied` states what is known beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .architectures import Architecture, Config
from .layout import GGUFFile
from .updates import Update

NOT_APPLIED = {"deepseek2": ("q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")}
"""Architecture → modules whose adapter llama.cpp ignores (0.3.36 of llama-cpp-python; `src/models/deepseek2.cpp`)."""


def applied(architecture: str, parameter: str) -> bool:
    """Whether llama.cpp's graph is known to apply an adapter on this parameter."""
    return parameter.split(".")[-2] not in NOT_APPLIED.get(architecture, ())


class AdapterFile:
    """Writes llama.cpp LoRA files for one adapter.

    Args:
        base: The base file.
        architecture: Its mapping.
        config: The target's Hugging Face configuration.
        updates: Parameter → update.
        destination: The file to write.
    """

    def __init__(
        self,
        base: GGUFFile,
        architecture: Architecture,
        config: Config,
        updates: Mapping[str, Update],
        destination: Path,
    ) -> None:
        self.path = destination
        self._architecture = architecture
        self._updates = updates
        self._pieces = {name: architecture.pieces(config, name) for name in updates}
        self._base = base

    def obstacle(self, name: str) -> str:
        """Why no adapter file can hold this update; empty if one can."""
        pieces = self._pieces[name]
        if len(pieces) > 1:
            made = " and ".join(piece.name for piece in pieces)
            return f"the base file stores it as {made}, which a LoRA file cannot address"
        if pieces[0].name not in self._base.tensors:
            return f"the base file has no tensor {pieces[0].name}"
        return ""

    def lay(self, factors: Mapping[str, float]) -> None:
        """Writes a file with factor · update for every parameter whose factor is given and not 0."""
        import gguf

        writer = gguf.GGUFWriter(self.path, self._architecture.name)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        # alpha = 0 tells llama.cpp to scale by 1: each tensor's own scaling is in its B
        writer.add_float32("adapter.lora.alpha", 0.0)
        for name, update in self._updates.items():
            factor = factors.get(name, 0.0)
            if factor and not self.obstacle(name):
                piece = self._pieces[name][0]
                # the maps that reach here permute rows alone, so they act on B's rows
                b = piece.take(np.ascontiguousarray(factor * update.scaling * update.b, dtype=np.float32))
                writer.add_tensor(f"{piece.name}.lora_a", np.ascontiguousarray(update.a, dtype=np.float32))
                writer.add_tensor(f"{piece.name}.lora_b", np.ascontiguousarray(b, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
