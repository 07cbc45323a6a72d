"""Small random models that the tests share: a DeepSeek-V2 and a Llama of the real classes, with a byte tokenizer."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from m3i.artifacts import TargetInfo
from m3i.models.target import LoadedTarget

SPECIAL = ["<pad>", "<bos>", "<eos>"]
BOS, EOS = 1, 2

DEEPSEEK = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "topk_method": "greedy",
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
LLAMA = {
    "vocab_size": 259,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "tie_word_embeddings": True,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}


def byte_tokenizer(merges=()):
    """One token a byte and a merge, `<bos>` before every text; 259 tokens without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIAL, *alphabet, *("".join(pair) for pair in merges)]
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(words)}, merges=list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def small_deepseek(*, seed=0, router_std=0.3, **changes):
    """A DeepSeek-V2 in evaluation mode; transformers starts routers at zero, where every expert ties: `router_std`."""
    torch.manual_seed(seed)
    model = DeepseekV2ForCausalLM(DeepseekV2Config(**DEEPSEEK | changes))
    model.set_experts_implementation("eager")
    if router_std:
        for layer in model.model.layers[model.config.first_k_dense_replace :]:
            torch.nn.init.normal_(layer.mlp.gate.weight, std=router_std)
    return model.eval().requires_grad_(False)


def small_llama(*, seed=1, **changes):
    """A Llama in evaluation mode."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**LLAMA | changes)).eval().requires_grad_(False)


def wrap(model, tokenizer=None, stop_ids=(EOS,), **facts):
    """The model as a loaded target, with facts read from its configuration unless given."""
    config = model.config.to_dict()
    moe = "n_routed_experts" in config
    known = {
        "name": f"small {config['model_type']}",
        "revision": "0",
        "architecture": type(model).__name__,
        "family": "none",
        "n_layers": config["num_hidden_layers"],
        "n_parameters": 1,
        "n_active": 1,
        "n_experts": config["n_routed_experts"] if moe else 0,
        "n_experts_active": config["num_experts_per_tok"] if moe else 0,
        "dense_layers": tuple(range(config["first_k_dense_replace"])) if moe else (),
        "config": config,
    }
    return LoadedTarget(info=TargetInfo(**known | facts), model=model, tokenizer=tokenizer, stop_ids=stop_ids)
