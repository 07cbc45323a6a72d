"""The weights that a configuration implies, with their names on the hub and their shapes; needs no weight file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TensorHeader:
    """Header of one tensor in a safetensors file."""

    dtype: str
    """Data type as the file spells it: F32, BF16, F8_E4M3, ..."""
    shape: tuple[int, ...]

    @property
    def n_elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def architecture_of(config: Mapping[str, Any]) -> str:
    """Returns the transformers class that the configuration names."""
    return str(config["architectures"][0])


def implied_tensors(config: Mapping[str, Any]) -> dict[str, TensorHeader]:
    """Returns every weight that a configuration implies, by its name on the hub (each expert separately)."""
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
