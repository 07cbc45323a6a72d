"""Reads facts about a Hugging Face model folder from `config.json` and safetensors headers, without torch.

Unusable targets are rejected here, before any stage runs: a folder without weights or configuration, a truncated weight
file, an architecture that cannot be exported, too little memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from m3i.artifacts import TargetInfo
from m3i.errors import ConfigError, InputError
from m3i.models.huggingface.resources import require_memory, resolve_device, resolve_dtype
from m3i.models.huggingface.shapes import TensorHeader, architecture_of, implied_tensors

EXPORTABLE = {"DeepseekV2ForCausalLM": "deepseek2", "LlamaForCausalLM": "llama"}
"""Class in transformers → architecture in GGUF, for the architectures that can be exported to llama.cpp."""

HASHED_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja")
"""Suffixes of the files that make up a model: weights, configuration, tokenizer. Notes and logs are not hashed."""

_FAMILIES = {
    "deepseek": "deepseek",
    "smollm": "smollm",
    "qwen": "qwen",
    "mistral": "mistral",
    "gemma": "google",
    "llama": "meta",
}


def describe_folder(
    folder: Path,
    *,
    name: str,
    revision: str = "",
    family: str = "",
    device: str = "auto",
    dtype: str = "auto",
) -> TargetInfo:
    """Returns facts about the model in a folder, from `config.json` and the headers of its safetensors files.

    Args:
        folder: Contains `config.json`, weights as safetensors (one file, or shards with an index) and a tokenizer.
        name: The target's name in reports.
        revision: Commit of the files if the hub vouches for them; if empty, the hash of their contents is used.
        family: The model's family; if empty, guessed from the name and the configuration.
        device: `auto` (CUDA if available), or a torch device such as `cpu`, `cuda`, `cuda:1`.
        dtype: `auto` (float32 on the CPU, the checkpoint's own elsewhere) or a key of `DTYPE_BYTES`.

    Raises:
        InputError: No configuration, no weights, a missing or truncated shard, or too little memory.
        ConfigError: The architecture cannot be exported, or the device or data type cannot be used.
    """
    config = read_config(folder)
    require_exportable(config, folder)
    tensors = read_tensor_headers(folder)
    info = describe_config(
        config,
        name=name,
        revision=revision or hash_folder(folder),
        family=family or guess_family(f"{name} {folder.name}", config),
        tensors=tensors,
        device=device,
        dtype=dtype,
        files={"model": str(folder)},
    )
    require_memory(info)
    return info


def describe_config(
    config: Mapping[str, Any],
    *,
    name: str,
    revision: str,
    family: str,
    tensors: Mapping[str, TensorHeader] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    files: Mapping[str, str] | None = None,
) -> TargetInfo:
    """Returns facts about a model from its configuration, and from `tensors` or, without them, those it implies."""
    tensors = tensors if tensors is not None else implied_tensors(config)
    n_parameters = sum(t.n_elements for t in tensors.values())
    if config.get("tie_word_embeddings", False) and "lm_head.weight" in tensors:
        n_parameters -= tensors["lm_head.weight"].n_elements
    n_experts = int(config.get("n_routed_experts") or 0)
    n_active_experts = int(config.get("num_experts_per_tok") or 0) if n_experts else 0
    routed = sum(t.n_elements for key, t in tensors.items() if ".mlp.experts." in key)
    idle = routed * (n_experts - n_active_experts) // n_experts if n_experts else 0
    kind = resolve_device(device)
    return TargetInfo(
        name=name,
        revision=revision,
        architecture=architecture_of(config),
        family=family,
        n_layers=int(config["num_hidden_layers"]),
        n_parameters=n_parameters,
        n_active=n_parameters - idle,
        n_experts=n_experts,
        n_experts_active=n_active_experts,
        dense_layers=tuple(range(int(config.get("first_k_dense_replace") or 0))) if n_experts else (),
        device=kind,
        dtype=resolve_dtype(dtype, kind, config),
        config=dict(config),
        files=dict(files or {}),
    )


# -- files ------------------------------------------------------------------------------------


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the content of `config.json`. Raises InputError if the folder, the file or a required key is missing."""
    if not folder.is_dir():
        raise InputError(f"target folder {folder} does not exist; give a folder with config.json and *.safetensors")
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"target folder {folder} has no config.json; give a folder written by save_pretrained")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error})") from None
    needed = ("architectures", "num_hidden_layers", "hidden_size")
    missing = [key for key in needed if not isinstance(config, dict) or not config.get(key)]
    if missing:
        raise InputError(f"{path} does not describe a causal language model: it lacks {', '.join(missing)}")
    return dict(config)


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files with the weights. Raises InputError if there are none or a shard is missing."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (json.JSONDecodeError, KeyError, AttributeError, UnicodeDecodeError) as error:
            raise InputError(f"{index} is not a safetensors index ({error!r})") from None
        absent = [shard for shard in shards if not (folder / shard).is_file()]
        if absent:
            raise InputError(f"target folder {folder} lacks weights that its index names: {', '.join(absent)}")
        return [folder / shard for shard in shards]
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".gguf"))
    found = f" (it has {', '.join(others)}, which cannot be read: convert with save_pretrained)" if others else ""
    raise InputError(f"target folder {folder} has no weights: expected model.safetensors or a sharded index{found}")


def read_tensor_headers(folder: Path) -> dict[str, TensorHeader]:
    """Returns name → header of every tensor in the folder's weights. Raises InputError for a damaged file."""
    return {name: header for path in weight_files(folder) for name, header in _file_headers(path).items()}


def _file_headers(path: Path) -> dict[str, TensorHeader]:
    # Layout: 8 bytes little-endian length, that many bytes of JSON, the data.
    # Source: https://github.com/huggingface/safetensors#format
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise InputError(f"{path} is not a safetensors file, or is truncated within its header; download it again")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            tensors = {k: TensorHeader(dtype=v["dtype"], shape=tuple(v["shape"])) for k, v in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} has no readable safetensors header ({error!r}); download it again") from None
    if size != 8 + length + end:
        raise InputError(f"{path} has {size} bytes, but its header says {8 + length + end}; download it again")
    return tensors


def hash_folder(folder: Path) -> str:
    """Returns the sha256 over names and contents of the files that make up the model; see HASHED_SUFFIXES."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in HASHED_SUFFIXES):
        digest.update(f"{path.name}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Returns the sha256 of a file, which each process reads once per size and modification time."""
    state = path.stat()
    return _hash_file(path, state.st_size, state.st_mtime_ns)


@cache
def _hash_file(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- what a configuration implies ---------------------------------------------------------------


def guess_family(text: str, config: Mapping[str, Any]) -> str:
    """Returns a model's family, from its name, else the `model_type` in its configuration."""
    words = text.lower()
    named = next((family for key, family in _FAMILIES.items() if key in words), None)
    return named or str(config.get("model_type", "unknown"))


def require_exportable(config: Mapping[str, Any], where: Path | str) -> None:
    """Raises ConfigError if the architecture cannot be exported to llama.cpp, or if the weights are quantised."""
    architecture = architecture_of(config)
    if architecture not in EXPORTABLE:
        raise ConfigError(
            f"target {where} is a {architecture}, which cannot be exported to GGUF; "
            f"supported: {', '.join(sorted(EXPORTABLE))}"
        )
    if config.get("quantization_config"):
        method = dict(config["quantization_config"]).get("quant_method", "unknown")
        raise ConfigError(
            f"target {where} has weights quantised by '{method}', which cannot be trained and merged exactly; "
            "give the checkpoint in float32, bfloat16 or float16"
        )
