"""The shape of the tiny target: DeepSeek-V2 in miniature, in transformers' native class.

Every part of DeepSeek-V2-Lite is here on a small scale: MLA without a query bottleneck, a dense first layer, then
mixture-of-experts layers with shared experts and a greedy softmax top-k router whose weights are not renormalised.
Widths are multiples of 32, so every weight row fits GGUF's quantisation blocks of 32.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from transformers import DeepseekV2Config

TinyModel: TypeAlias = Any
"""A `transformers.DeepseekV2ForCausalLM`; its own annotations of `generate` and `to` do not type-check, hence `Any`."""

PAD_ID, BOS_ID, EOS_ID, UNK_ID = range(4)
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))
"""Every character that has a token of its own: the newline and printable ASCII."""


def build_config() -> "DeepseekV2Config":
    """The configuration of the tiny target, default (unscaled) rotary embedding included."""
    from transformers import DeepseekV2Config

    return DeepseekV2Config(
        vocab_size=len(SPECIAL_TOKENS) + len(CHARACTERS),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=12,
        first_k_dense_replace=1,
        # MLA
        num_attention_heads=4,
        q_lora_rank=None,
        kv_lora_rank=64,
        qk_nope_head_dim=32,
        qk_rope_head_dim=32,
        v_head_dim=32,
        max_position_embeddings=256,
        # mixture of experts
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_shared_experts=2,
        moe_intermediate_size=32,
        topk_method="greedy",
        norm_topk_prob=False,
        routed_scaling_factor=1.0,
        n_group=None,
        topk_group=None,
        # rest
        initializer_range=0.04,
        tie_word_embeddings=False,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
    )


def build_model(seed: int) -> TinyModel:
    """A freshly initialised tiny target in float32, with the experts implementation that is fastest on CPUs.

    Args:
        seed: Seed of the initial weights; torch's global generator is left seeded by it.
    """
    import torch
    from transformers import DeepseekV2ForCausalLM

    torch.manual_seed(seed)
    model = DeepseekV2ForCausalLM(build_config())
    model.set_experts_implementation("eager")
    return model
