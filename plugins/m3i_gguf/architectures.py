"""How each architecture's weights are stored in a GGUF file: names, shapes, and the linear maps between them.

A `Piece` takes a Hugging Face weight (or an update of it: the maps are linear) to one GGUF tensor. Shapes are in
numpy's order, the last axis contiguous; GGUF writes them reversed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from m3i import ConfigError

Config = Mapping[str, Any]
"""A Hugging Face configuration as a dictionary."""


def whole(weight: np.ndarray) -> np.ndarray:
    """The weight as it is."""
    return weight


@dataclass(frozen=True)
class Piece:
    """One GGUF tensor made from one Hugging Face parameter."""

    name: str
    take: Callable[[np.ndarray], np.ndarray] = whole
    """Linear map from the parameter, or from an update of it, to the tensor."""


@dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp."""

    name: str
    """`general.architecture` in the file."""
    check: Callable[[Config], None]
    """Raises ConfigError for a configuration that llama.cpp would compute differently."""
    split: Callable[[Config, str], tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...]]
    """Parameter → (Hugging Face name as the `gguf` package knows it, map) for each tensor that it becomes."""
    joined: Callable[[Config, str, Sequence[np.ndarray]], np.ndarray]
    """The inverse of `split`: the parameter from its tensors."""
    metadata: Callable[[Config], dict[str, Any]]
    """Keys without the architecture's prefix → values."""
    extra: Callable[[Config], dict[str, np.ndarray]]
    """Tensors that correspond to no parameter."""

    def pieces(self, config: Config, parameter: str) -> tuple[Piece, ...]:
        """Returns the GGUF tensors that one parameter of the transformers model becomes.

        Raises:
            ConfigError: llama.cpp has no tensor for it.
        """
        return tuple(
            Piece(gguf_name(self.name, int(config["num_hidden_layers"]), name), take)
            for name, take in self.split(config, parameter)
        )

    def join(self, config: Config, parameter: str, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the parameter from its GGUF tensors, in the order of `pieces`."""
        return self.joined(config, parameter, tensors)


def architecture_of(architecture: str, config: Config) -> Architecture:
    """Returns the GGUF architecture of a transformers class and checks its configuration. Raises ConfigError."""
    found = ARCHITECTURES.get(architecture)
    if found is None:
        raise ConfigError(
            f"{architecture} cannot be exported to GGUF: this exporter supports {', '.join(ARCHITECTURES)}; "
            "choose such a target, or write an exporter (docs/hooks.md)"
        )
    found.check(config)
    return found


@cache
def _name_map(architecture: str, n_layers: int) -> Any:
    import gguf

    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    return gguf.get_tensor_name_map(number, n_layers)


def gguf_name(architecture: str, n_layers: int, parameter: str) -> str:
    """The GGUF name of a Hugging Face parameter. Raises ConfigError if the `gguf` package knows none."""
    name = _name_map(architecture, n_layers).get_name(parameter, try_suffixes=(".weight", ".bias"))
    if name is None:
        raise ConfigError(f"llama.cpp's {architecture} has no tensor for the parameter {parameter}")
    return str(name)


def _require(config: Config, what: str, ok: bool, why: str) -> None:
    if not ok:
        raise ConfigError(f"{what} = {config.get(what)!r} cannot be exported faithfully: {why}")


def _rope(config: Config) -> Mapping[str, Any]:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta", 10000.0), "rope_type": "default", **rope}


def _common(config: Config) -> dict[str, Any]:
    """Metadata that every architecture has."""
    return {
        "block_count": int(config["num_hidden_layers"]),
        "context_length": int(config["max_position_embeddings"]),
        "embedding_length": int(config["hidden_size"]),
        "feed_forward_length": int(config["intermediate_size"]),
        "attention.head_count": int(config["num_attention_heads"]),
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(_rope(config)["rope_theta"]),
        "vocab_size": int(config["vocab_size"]),
    }


# -- DeepSeek-V2 ------------------------------------------------------------------------------

LITE_LAYER_COUNTS = (26, 27)
"""Layer counts at which llama.cpp treats a model as 'lite' and reads no q_lora_rank."""


def _check_deepseek2(config: Config) -> None:
    rope = _rope(config)
    _require(config, "hidden_act", config.get("hidden_act", "silu") == "silu", "llama.cpp computes silu")
    _require(config, "attention_bias", not config.get("attention_bias"), "llama.cpp's deepseek2 has no such biases")
    _require(config, "mlp_bias", not config.get("mlp_bias"), "llama.cpp's deepseek2 has no such biases")
    _require(
        config,
        "norm_topk_prob",
        not config.get("norm_topk_prob"),
        "transformers ignores it and llama.cpp obeys it, so the two would be different models",
    )
    grouped = config.get("topk_method", "greedy") != "greedy" and (config.get("n_group") or 1) > 1
    _require(config, "topk_method", not grouped, "llama.cpp's deepseek2 routes greedily, without groups of experts")
    lite = config["num_hidden_layers"] in LITE_LAYER_COUNTS
    _require(
        config,
        "q_lora_rank",
        not (lite and config.get("q_lora_rank")),
        f"llama.cpp treats every model with {LITE_LAYER_COUNTS} layers as one without a query bottleneck",
    )
    if rope["rope_type"] == "yarn":
        same = rope.get("mscale") is not None and rope.get("mscale") == rope.get("mscale_all_dim")
        _require(config, "rope_parameters", same, "llama.cpp's deepseek2 assumes mscale = mscale_all_dim with yarn")
    else:
        _require(config, "rope_parameters", rope["rope_type"] == "default", "expected rope_type default or yarn")


def _split_deepseek2(config: Config, parameter: str) -> tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...]:
    if parameter.endswith("self_attn.kv_b_proj.weight"):
        n_heads, nope = int(config["num_attention_heads"]), int(config["qk_nope_head_dim"])

        def heads(weight: np.ndarray) -> np.ndarray:
            return weight.reshape(n_heads, -1, weight.shape[-1])  # [heads, nope + v, kv_lora]

        return (
            # llama.cpp multiplies the query by k_b (MLA 'absorbed'), so k_b is stored transposed
            (parameter.replace("kv_b_proj", "k_b_proj"), lambda w: heads(w)[:, :nope].swapaxes(1, 2)),
            (parameter.replace("kv_b_proj", "v_b_proj"), lambda w: heads(w)[:, nope:]),
        )
    if parameter.endswith("mlp.experts.gate_up_proj"):
        inner = int(config["moe_intermediate_size"])
        return (
            (parameter.replace("gate_up_proj", "gate_proj.weight"), lambda w: w[:, :inner]),
            (parameter.replace("gate_up_proj", "up_proj.weight"), lambda w: w[:, inner:]),
        )
    if parameter.endswith("mlp.experts.down_proj"):
        return ((parameter + ".weight", whole),)
    return ((parameter, whole),)


def _join_deepseek2(config: Config, parameter: str, tensors: Sequence[np.ndarray]) -> np.ndarray:
    if parameter.endswith("self_attn.kv_b_proj.weight"):
        k_b, v_b = tensors
        heads = np.concatenate([k_b.swapaxes(1, 2), v_b], axis=1)
        return heads.reshape(-1, heads.shape[-1])
    if parameter.endswith("mlp.experts.gate_up_proj"):
        return np.concatenate(tensors, axis=1)
    return tensors[0]


def _metadata_deepseek2(config: Config) -> dict[str, Any]:
    rope, latent = _rope(config), int(config["kv_lora_rank"])
    rope_dim, nope = int(config["qk_rope_head_dim"]), int(config["qk_nope_head_dim"])
    keys = {
        **_common(config),
        "attention.head_count_kv": 1,  # the latent is shared by all heads
        "attention.kv_lora_rank": latent,
        "attention.key_length": latent + rope_dim,
        "attention.value_length": latent,
        "attention.key_length_mla": nope + rope_dim,
        "attention.value_length_mla": int(config["v_head_dim"]),
        "rope.dimension_count": rope_dim,
        "leading_dense_block_count": int(config.get("first_k_dense_replace") or 0),
        "expert_count": int(config["n_routed_experts"]),
        "expert_used_count": int(config["num_experts_per_tok"]),
        "expert_shared_count": int(config.get("n_shared_experts") or 0),
        "expert_feed_forward_length": int(config["moe_intermediate_size"]),
        "expert_weights_scale": float(config.get("routed_scaling_factor") or 1.0),
        "expert_weights_norm": False,
        "expert_gating_func": 1,  # softmax
    }
    if config["num_hidden_layers"] not in LITE_LAYER_COUNTS:
        keys["attention.q_lora_rank"] = int(config.get("q_lora_rank") or 0)
    if rope["rope_type"] == "yarn":
        keys |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope["factor"]),
            "rope.scaling.original_context_length": int(rope["original_max_position_embeddings"]),
            "rope.scaling.yarn_beta_fast": float(rope.get("beta_fast") or 32),
            "rope.scaling.yarn_beta_slow": float(rope.get("beta_slow") or 1),
            # llama.cpp divides this key by 0.1 again for deepseek2 files
            "rope.scaling.yarn_log_multiplier": 0.1 * float(rope["mscale_all_dim"]),
        }
    return keys


# -- Llama ------------------------------------------------------------------------------------


def _head_dim(config: Config) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _check_llama(config: Config) -> None:
    kinds = ("default", "linear", "llama3")
    _require(config, "hidden_act", config.get("hidden_act", "silu") == "silu", "llama.cpp computes silu")
    _require(config, "rope_parameters", _rope(config)["rope_type"] in kinds, f"expected rope_type {', '.join(kinds)}")


def interleave(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Reorders rows of q or k from transformers' rotary layout (two halves per head) to llama.cpp's adjacent pairs."""
    return weight.reshape(n_heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def halve(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """The inverse of `interleave`."""
    return weight.reshape(n_heads, -1, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _split_llama(config: Config, parameter: str) -> tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...]:
    n_heads = int(config["num_attention_heads"])
    n_kv = int(config.get("num_key_value_heads") or n_heads)
    if re.search(r"self_attn\.q_proj\.(weight|bias)$", parameter):
        return ((parameter, lambda w: interleave(w, n_heads)),)
    if re.search(r"self_attn\.k_proj\.(weight|bias)$", parameter):
        return ((parameter, lambda w: interleave(w, n_kv)),)
    return ((parameter, whole),)


def _join_llama(config: Config, parameter: str, tensors: Sequence[np.ndarray]) -> np.ndarray:
    n_heads = int(config["num_attention_heads"])
    n_kv = int(config.get("num_key_value_heads") or n_heads)
    if re.search(r"self_attn\.q_proj\.(weight|bias)$", parameter):
        return halve(tensors[0], n_heads)
    if re.search(r"self_attn\.k_proj\.(weight|bias)$", parameter):
        return halve(tensors[0], n_kv)
    return tensors[0]


def _metadata_llama(config: Config) -> dict[str, Any]:
    rope = _rope(config)
    keys = {
        **_common(config),
        "attention.head_count_kv": int(config.get("num_key_value_heads") or config["num_attention_heads"]),
        "attention.key_length": _head_dim(config),
        "attention.value_length": _head_dim(config),
        "rope.dimension_count": _head_dim(config),
    }
    if rope["rope_type"] == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    return keys


def _extra_llama(config: Config) -> dict[str, np.ndarray]:
    """Llama 3's frequency factors, by which llama.cpp divides each rotary frequency.

    Source: Grattafiori et al. 2024 (2407.21783), section 3.2, as in transformers' `_compute_llama3_parameters`.
    """
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return {}
    dim, factor = _head_dim(config), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    context = float(rope["original_max_position_embeddings"])
    wavelength_F = 2 * np.pi * float(rope["rope_theta"]) ** (np.arange(0, dim, 2) / dim)
    share_F = np.clip((context / wavelength_F - low) / (high - low), 0.0, 1.0)  # 1: kept, 0: stretched by the factor
    return {"rope_freqs.weight": (1.0 / ((1.0 - share_F) / factor + share_F)).astype(np.float32)}


ARCHITECTURES: dict[str, Architecture] = {
    "DeepseekV2ForCausalLM": Architecture(
        "deepseek2", _check_deepseek2, _split_deepseek2, _join_deepseek2, _metadata_deepseek2, lambda _: {}
    ),
    "LlamaForCausalLM": Architecture("llama", _check_llama, _split_llama, _join_llama, _metadata_llama, _extra_llama),
}
"""transformers class → GGUF architecture."""
