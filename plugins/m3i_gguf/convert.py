"""Hugging Face model → GGUF file, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from m3i import LoadedTarget, StageError
from m3i.models.llamacpp.session import quantize

from .architectures import Architecture, architecture_of
from .vocabulary import vocabulary


class FileType(str, Enum):
    """Type of the matrices in a GGUF file; vectors and router weights are F32 in every file."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"


FTYPE = {FileType.F32: 0, FileType.F16: 1, FileType.BF16: 32, FileType.Q8_0: 7, FileType.Q4_K_M: 15}
"""llama.cpp's numbers (`enum llama_ftype`)."""


def convert(target: LoadedTarget, destination: Path, file_type: FileType, *, n_threads: int = 1) -> None:
    """Writes a target as GGUF.

    Args:
        target: Model and tokenizer; DeepseekV2ForCausalLM or LlamaForCausalLM.
        destination: The file to write.
        file_type: Q8_0 needs rows divisible by 32 and falls back to F16 elsewhere; Q4_K_M is llama.cpp's own mixture,
            needs rows divisible by 256 and falls back as llama.cpp does. `tensor_types` lists the resulting types.
        n_threads: Threads of the K-quantiser.

    Raises:
        ConfigError: The architecture, its configuration or its tokenizer cannot be exported; nothing was written.
        LlamaFailed, LlamaCrashed: The quantiser failed.
    """
    if file_type is not FileType.Q4_K_M:
        write_plain(target, destination, file_type)
        return
    exact = {"torch.float16": FileType.F16, "torch.bfloat16": FileType.BF16}.get(str(target.model.dtype), FileType.F32)
    plain = destination.with_suffix(f".{exact.value}.gguf")
    try:
        write_plain(target, plain, exact)
        quantize(plain, destination, ftype=FTYPE[file_type], n_threads=n_threads)
    finally:
        plain.unlink(missing_ok=True)


def write_plain(target: LoadedTarget, destination: Path, file_type: FileType) -> None:
    """Writes F32, F16, BF16 or Q8_0; see `convert`."""
    import gguf

    config = target.model.config.to_dict()
    architecture = architecture_of(target.info.architecture, config)
    words = vocabulary(target.tokenizer, int(config["vocab_size"]))
    writer = gguf.GGUFWriter(destination, architecture.name)
    writer.add_name(target.info.name)
    writer.add_file_type(FTYPE[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in architecture.metadata(config).items():
        add_value(writer, f"{architecture.name}.{key}", value)
    for key, value in words.items():
        add_value(writer, key, value)
    for name, parameter in _tensors(target.model, architecture, config, only_shapes=True):
        kind = tensor_type(name, parameter.shape, file_type)
        # the writer counts every type but F32 and F16 in bytes
        byte_shape = gguf.quant_shape_to_byte_shape(parameter.shape, kind)
        writer.add_tensor_info(name, byte_shape, np.dtype(np.uint8), int(np.prod(byte_shape)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, values in _tensors(target.model, architecture, config, only_shapes=False):
        writer.write_tensor_data(gguf.quantize(values, tensor_type(name, values.shape, file_type)))
    writer.close()


def add_value(writer: Any, key: str, value: Any) -> None:
    """Adds one metadata entry with the GGUF type that llama.cpp expects: u32 for integers, f32 for fractions."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
        case _:
            raise TypeError(f"{key}: no GGUF type for {type(value).__name__}")


def tensor_type(name: str, shape: tuple[int, ...], file_type: FileType) -> Any:
    """The GGML type of one tensor: F32 for vectors, norms and routers, the file's type for other matrices."""
    import gguf

    kind = gguf.GGMLQuantizationType[file_type.name]
    if len(shape) == 1 or "ffn_gate_inp" in name:
        return gguf.GGMLQuantizationType.F32
    if kind == gguf.GGMLQuantizationType.Q8_0 and shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        return gguf.GGMLQuantizationType.F16
    return kind


def tensor_types(path: Path) -> dict[str, int]:
    """GGML type → number of tensors of that type in a file."""
    import gguf

    counts: dict[str, int] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
    return dict(sorted(counts.items()))


def expected_tensors(model: Any, architecture: str) -> dict[str, tuple[int, ...]]:
    """GGUF name → shape (numpy's order) of every tensor that a model becomes; works on the meta device."""
    config = model.config.to_dict()
    found = architecture_of(architecture, config)
    return {name: values.shape for name, values in _tensors(model, found, config, only_shapes=True)}


def _tensors(
    model: Any, architecture: Architecture, config: dict[str, Any], *, only_shapes: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """GGUF tensors in float32; empty views of the right shape when only the shapes are wanted."""
    for parameter, tensor in model.named_parameters():
        if only_shapes:
            weight = np.broadcast_to(np.float32(0), tuple(tensor.shape))
        else:
            weight = tensor.detach().float().cpu().numpy()
            if not np.isfinite(weight).all():
                raise StageError(f"{parameter} holds values that are not finite; the target cannot be exported")
        for piece in architecture.pieces(config, parameter):
            yield piece.name, piece.take(weight) if only_shapes else np.ascontiguousarray(piece.take(weight))
    yield from architecture.extra(config).items()
