"""Files and models that hold exactly the base file's values, so that a certificate sees the update and no rounding.

llama.cpp's kernels for quantised weights also round the *activations* to 8 bits, those for F16 to 16. On SmolLM2's Q4_1
file that alone moves log-probabilities by 0.17 nats against transformers with the very same weights, more than a small
update does, and tuned minus base inherits it. Two things take the rounding out of the comparison without touching what
is compared:

- the *twin* of a file has each tensor dequantised to F32: the same values, the same graph, exact arithmetic;
- the reference model in PyTorch gets the base file's values in place of its own while the certificate is measured.

The effect of the narrow kernels on the real files is measured separately, and stated in the certificate's note.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from m3i import LoadedTarget, StageError

from .architectures import Architecture, Config
from .layout import GGUFFile, copy_with_types, encode, write_tensor


def is_narrow(base: GGUFFile) -> bool:
    """Whether some tensor is not F32, so that its kernel rounds activations."""
    return any(place.kind.name != "F32" for place in base.tensors.values())


def write_twin(base: GGUFFile, destination: Path) -> GGUFFile:
    """Returns the base file with every tensor in F32. Raises StageError if the disk has no room for it."""
    import gguf

    f32 = gguf.GGMLQuantizationType.F32
    kinds = {name: f32 for name, place in base.tensors.items() if place.kind != f32}
    needed = 4 * sum(math.prod(place.shape) for place in base.tensors.values())
    free = shutil.disk_usage(destination.parent).free
    if needed > free:
        raise StageError(
            f"the certificate's F32 twin of {base.path.name} temporarily needs {needed / 1e9:.1f} GB, but "
            f"{free / 1e9:.1f} GB are free in {destination.parent}; free some space, or set exporter.twin=false to "
            "measure on the file as it is"
        )
    places = copy_with_types(base, destination, kinds)
    for name in kinds:
        write_tensor(destination, places[name], encode(base.values(name), f32))
    return GGUFFile(destination)


@contextmanager
def file_values(loaded: LoadedTarget, architecture: Architecture, config: Config, base: GGUFFile) -> Iterator[int]:
    """Puts the base file's values into the target's parameters; on exit their own values are restored bit for bit.

    Yields:
        The number of parameters that differed.
    """
    import torch

    kept: dict[str, torch.Tensor] = {}
    parameters = dict(loaded.model.named_parameters())
    try:
        with torch.no_grad():
            for name, parameter in parameters.items():
                pieces = architecture.pieces(config, name)
                mine = architecture.join(config, name, [base.values(piece.name) for piece in pieces])
                value = torch.tensor(np.ascontiguousarray(mine)).to(parameter.device, parameter.dtype)
                if not torch.equal(value, parameter):
                    kept[name] = parameter.detach().clone()
                    parameter.copy_(value)
        yield len(kept)
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                parameters[name].copy_(value)
