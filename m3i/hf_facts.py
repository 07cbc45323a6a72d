"""Facts about a model folder in Hugging Face's layout, read from `config.json` and safetensors headers: no torch.

Everything that makes a target unusable is refused here, before a stage runs: a folder without weights or
configuration, a truncated weight file, an architecture that cannot be exported, too little memory.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from m3i.artifacts import TargetInfo
from m3i.errors import ConfigError, InputError

EXPORTABLE = {"DeepseekV2ForCausalLM": "deepseek2", "LlamaForCausalLM": "llama"}
"""Class in transformers → architecture in GGUF: what a tuned model can be brought to llama.cpp from."""

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Data types that weights may have in memory, and their size."""

HASHED_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja")
"""Files that make up a model: weights, configuration and tokenizer. Notes and logs beside them do not count."""

_WORKING_MEMORY = 1.25
"""Weights, activations, adapter and optimizer state together, as a multiple of the weights alone."""

_FAMILIES = {
    "deepseek": "deepseek",
    "smollm": "smollm",
    "qwen": "qwen",
    "mistral": "mistral",
    "gemma": "google",
    "llama": "meta",
}


@dataclass(frozen=True, kw_only=True)
class TensorHeader:
    """One tensor of a safetensors file, by its header."""

    dtype: str
    """As safetensors writes it: F32, BF16, F8_E4M3, ..."""
    shape: tuple[int, ...]

    @property
    def n_elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def describe_folder(
    folder: Path,
    *,
    name: str,
    revision: str = "",
    family: str = "",
    device: str = "auto",
    dtype: str = "auto",
) -> TargetInfo:
    """Facts about the model in a folder, from `config.json` and the headers of its safetensors files.

    Args:
        folder: Holds `config.json`, weights as safetensors (one file, or shards with an index) and a tokenizer.
        name: The target's name in reports.
        revision: Commit of the files where the hub vouches for them; the hash of their contents when empty.
        family: Who made the model; guessed from the name and the configuration when empty.
        device: `auto` (CUDA where there is one), or a torch device such as `cpu`, `cuda`, `cuda:1`.
        dtype: `auto` (float32 on the CPU, the checkpoint's own elsewhere) or a key of `DTYPE_BYTES`.

    Raises:
        InputError: No configuration, no weights, a missing or truncated shard, or too little memory.
        ConfigError: The architecture cannot be exported, or device or data type cannot be used.
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
    """Facts about a model from its configuration; tensors are those the configuration implies where none are given."""
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
    """Content of `config.json`. Raises InputError where the folder, the file or a needed key is missing."""
    if not folder.is_dir():
        raise InputError(f"target folder {folder} does not exist; give a folder with config.json and *.safetensors")
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"target folder {folder} has no config.json; give a folder written by save_pretrained")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not readable as JSON ({error})") from None
    needed = ("architectures", "num_hidden_layers", "hidden_size")
    missing = [key for key in needed if not isinstance(config, dict) or not config.get(key)]
    if missing:
        raise InputError(f"{path} does not describe a causal language model: it lacks {', '.join(missing)}")
    return dict(config)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights. Raises InputError where there are none, or a shard is missing."""
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
    found = f" (it has {', '.join(others)}, which are not read: convert them with save_pretrained)" if others else ""
    raise InputError(f"target folder {folder} has no weights: model.safetensors or an index with shards{found}")


def read_tensor_headers(folder: Path) -> dict[str, TensorHeader]:
    """Name → type and shape of every tensor in the folder's weights. Raises InputError for a damaged file."""
    return {name: header for path in weight_files(folder) for name, header in _file_headers(path).items()}


def _file_headers(path: Path) -> dict[str, TensorHeader]:
    # Layout: 8 bytes little-endian length, that many bytes of JSON, the data.
    # Source: https://github.com/huggingface/safetensors#format
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise InputError(f"{path} is not a safetensors file, or it is cut off in its header; fetch it again")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            tensors = {k: TensorHeader(dtype=v["dtype"], shape=tuple(v["shape"])) for k, v in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} has no readable safetensors header ({error!r}); fetch it again") from None
    if size != 8 + length + end:
        raise InputError(f"{path} holds {size} bytes where its header promises {8 + length + end}; fetch it again")
    return tensors


def hash_folder(folder: Path) -> str:
    """sha256 over names and contents of the files that make up the model; see HASHED_SUFFIXES."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in HASHED_SUFFIXES):
        digest.update(f"{path.name}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file's contents; read once a process as long as size and modification time stay the same."""
    state = path.stat()
    return _hash_file(path, state.st_size, state.st_mtime_ns)


@cache
def _hash_file(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- what a configuration implies ---------------------------------------------------------------


def architecture_of(config: Mapping[str, Any]) -> str:
    """Class in transformers that the configuration names."""
    return str(config["architectures"][0])


def guess_family(text: str, config: Mapping[str, Any]) -> str:
    """Who made a model, by its name, else by the type that its configuration names."""
    words = text.lower()
    named = next((family for key, family in _FAMILIES.items() if key in words), None)
    return named or str(config.get("model_type", "unknown"))


def require_exportable(config: Mapping[str, Any], where: Path | str) -> None:
    """Raises ConfigError for an architecture, or for packed weights, that cannot be brought to llama.cpp."""
    architecture = architecture_of(config)
    if architecture not in EXPORTABLE:
        raise ConfigError(
            f"target {where} is a {architecture}, which cannot be exported to GGUF here; "
            f"supported: {', '.join(sorted(EXPORTABLE))}"
        )
    if config.get("quantization_config"):
        method = dict(config["quantization_config"]).get("quant_method", "unknown")
        raise ConfigError(
            f"target {where} has weights quantised by '{method}', which cannot be trained and merged exactly; "
            "give the checkpoint in float32, bfloat16 or float16"
        )


def implied_tensors(config: Mapping[str, Any]) -> dict[str, TensorHeader]:
    """Every weight that a configuration implies, by its name on the hub (experts one by one)."""
    shapes = (
        _deepseek_v2_shapes(config) if architecture_of(config) == "DeepseekV2ForCausalLM" else _llama_shapes(config)
    )
    return {name: TensorHeader(dtype="BF16", shape=shape) for name, shape in shapes.items()}


def _outer_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, vocabulary = int(config["hidden_size"]), int(config["vocab_size"])
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, width),
        "model.norm.weight": (width,),
    }
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocabulary, width)
    for i in range(int(config["num_hidden_layers"])):
        shapes[f"model.layers.{i}.input_layernorm.weight"] = (width,)
        shapes[f"model.layers.{i}.post_attention_layernorm.weight"] = (width,)
    return shapes


def _mlp_shapes(prefix: str, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.gate_proj.weight": (inner, width),
        f"{prefix}.up_proj.weight": (inner, width),
        f"{prefix}.down_proj.weight": (width, inner),
    }


def _deepseek_v2_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    # Source: DeepSeek-V2, 2405.04434, section 2 and appendix C (names of the latent dimensions).
    shapes = _outer_shapes(config)
    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    nope, rope, value = (int(config[k]) for k in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    latent, q_latent = int(config["kv_lora_rank"]), config.get("q_lora_rank")
    expert_width = int(config["moe_intermediate_size"])
    for i in range(int(config["num_hidden_layers"])):
        attention, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        if q_latent is None:
            shapes[f"{attention}.q_proj.weight"] = (heads * (nope + rope), width)
        else:
            shapes[f"{attention}.q_a_proj.weight"] = (int(q_latent), width)
            shapes[f"{attention}.q_a_layernorm.weight"] = (int(q_latent),)
            shapes[f"{attention}.q_b_proj.weight"] = (heads * (nope + rope), int(q_latent))
        shapes[f"{attention}.kv_a_proj_with_mqa.weight"] = (latent + rope, width)
        shapes[f"{attention}.kv_a_layernorm.weight"] = (latent,)
        shapes[f"{attention}.kv_b_proj.weight"] = (heads * (nope + value), latent)
        shapes[f"{attention}.o_proj.weight"] = (width, heads * value)
        if i < int(config["first_k_dense_replace"]):
            shapes |= _mlp_shapes(mlp, width, int(config["intermediate_size"]))
            continue
        shapes[f"{mlp}.gate.weight"] = (int(config["n_routed_experts"]), width)
        shapes |= _mlp_shapes(f"{mlp}.shared_experts", width, expert_width * int(config["n_shared_experts"]))
        for e in range(int(config["n_routed_experts"])):
            shapes |= _mlp_shapes(f"{mlp}.experts.{e}", width, expert_width)
    return shapes


def _llama_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes = _outer_shapes(config)
    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head = int(config.get("head_dim") or width // heads)
    for i in range(int(config["num_hidden_layers"])):
        attention = f"model.layers.{i}.self_attn"
        shapes[f"{attention}.q_proj.weight"] = (heads * head, width)
        shapes[f"{attention}.k_proj.weight"] = (kv_heads * head, width)
        shapes[f"{attention}.v_proj.weight"] = (kv_heads * head, width)
        shapes[f"{attention}.o_proj.weight"] = (width, heads * head)
        shapes |= _mlp_shapes(f"model.layers.{i}.mlp", width, int(config["intermediate_size"]))
    return shapes


# -- device, data type, memory --------------------------------------------------------------------


def resolve_device(device: str) -> str:
    """Kind of device, never `auto`: found out without importing torch."""
    if device != "auto":
        return device.partition(":")[0]
    return "cuda" if _torch_has_cuda() and _n_cuda_devices() > 0 else "cpu"


def resolve_dtype(dtype: str, device: str, config: Mapping[str, Any]) -> str:
    """Data type of the weights in memory, never `auto`. Raises ConfigError for one that is not known."""
    if dtype != "auto":
        if dtype not in DTYPE_BYTES:
            raise ConfigError(f"target.dtype = {dtype!r}: expected auto, {', '.join(DTYPE_BYTES)}")
        return dtype
    own = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return own if device != "cpu" and own in DTYPE_BYTES else "float32"


def require_memory(info: TargetInfo) -> None:
    """Raises InputError where weights and working memory do not fit what the CPU's memory has left.

    A GPU's memory can only be asked through torch: `m3i.hf_model.load_folder` checks it before it loads.
    """
    if info.device == "cpu":
        import psutil

        require_room(info, psutil.virtual_memory().available, "memory")


def require_room(info: TargetInfo, available: int, what: str) -> None:
    """Raises InputError where `available` bytes do not hold the target and its training."""
    needed = int(info.n_parameters * DTYPE_BYTES[info.dtype] * _WORKING_MEMORY)
    if needed > available:
        raise InputError(
            f"target {info.name} needs about {needed / 1e9:.1f} GB of {what} ({info.n_parameters / 1e9:.2f} B "
            f"parameters in {info.dtype}, and a quarter more to work with), {available / 1e9:.1f} GB are free; "
            "give target.dtype=bfloat16, another target.device, or a smaller target"
        )


def require_disk(folder: Path, needed: int, what: str) -> None:
    """Raises InputError where the file system of a folder (or of its nearest parent) has too little room."""
    import shutil

    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise InputError(f"{what} needs {needed / 1e9:.1f} GB on {existing}, {free / 1e9:.1f} GB are free")


def _torch_has_cuda() -> bool:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).parent / "version.py"
    lines = version.read_text().splitlines() if version.is_file() else []
    return any(line.startswith("cuda") and not line.rstrip().endswith("None") for line in lines)


@cache
def _n_cuda_devices() -> int:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
