"""A tokenizer's vocabulary as GGUF metadata, from the `tokenizer.json` that transformers' fast tokenizers hold.

The experiment hands llama.cpp only token ids, so the file's tokenizer is for people who use the exported model
elsewhere; token ids and texts are exact.
"""

from __future__ import annotations

import json
import re
from typing import Any

from m3i import ConfigError

NORMAL, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 3, 4, 5, 6
"""gguf.TokenType."""


def vocabulary(tokenizer: Any, n_vocab: int) -> dict[str, Any]:
    """`tokenizer.*` metadata.

    Args:
        tokenizer: A fast tokenizer of transformers.
        n_vocab: Rows of the embedding; ids without a token are named `[PAD<id>]` and marked unused.

    Raises:
        ConfigError: The tokenizer is neither byte-level BPE nor BPE with byte fallback, or has more ids than the model.
    """
    if not tokenizer.is_fast:
        raise ConfigError(f"{type(tokenizer).__name__} has no tokenizer.json; only fast tokenizers can be exported")
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model["type"] != "BPE":
        raise ConfigError(f"a {model['type']} tokenizer cannot be exported; expected byte-level BPE or BPE")
    by_bytes = bool(model.get("byte_fallback"))
    added = {token["id"]: token for token in described["added_tokens"]}
    ids = {**model["vocab"], **{token["content"]: i for i, token in added.items()}}
    if max(ids.values()) >= n_vocab:
        raise ConfigError(f"the tokenizer has id {max(ids.values())}, the model's embedding only {n_vocab} rows")
    tokens = [f"[PAD{i}]" for i in range(n_vocab)]
    types = [UNUSED] * n_vocab
    for token, i in ids.items():
        tokens[i] = token
        if i in added:
            types[i] = CONTROL if added[i]["special"] else USER_DEFINED
        elif by_bytes and re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            types[i] = BYTE
        else:
            types[i] = NORMAL
    keys: dict[str, Any] = {
        "tokenizer.ggml.model": "llama" if by_bytes else "gpt2",
        "tokenizer.ggml.pre": "default" if by_bytes else pre_tokenizer(described.get("pre_tokenizer") or {}),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
    }
    if by_bytes:
        keys["tokenizer.ggml.scores"] = [-float(i) for i in range(n_vocab)]
    else:
        merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        # llama.cpp requires at least one merge; this one joins tokens that no text contains, so it never applies
        keys["tokenizer.ggml.merges"] = merges or [f"[PAD{n_vocab}] [PAD{n_vocab}]"]
    for name in ("bos", "eos", "unk", "pad"):
        token_id = getattr(tokenizer, f"{name}_token_id")
        if token_id is not None:
            keys[f"tokenizer.ggml.{'unknown' if name == 'unk' else 'padding' if name == 'pad' else name}_token_id"] = (
                int(token_id)
            )
    keys["tokenizer.ggml.add_bos_token"] = list(tokenizer("").get("input_ids", []))[:1] == [tokenizer.bos_token_id]
    if tokenizer.chat_template:
        keys["tokenizer.chat_template"] = str(tokenizer.chat_template)
    return keys


def pre_tokenizer(described: dict[str, Any]) -> str:
    """llama.cpp's name for the rule that splits text before BPE; `default` if none is known to match."""
    parts = described.get("pretokenizers", [described])
    kinds = [part.get("type") for part in parts]
    patterns = " ".join(str(part.get("pattern", {}).get("Regex", "")) for part in parts if part.get("type") == "Split")
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if "(?i:'s|'t|'re|'ve|'m|'ll|'d)" in patterns and r"\p{N}{1,3}" in patterns:
        return "llama-bpe"
    if "一-龥" in patterns and kinds[-1] == "ByteLevel":
        return "deepseek-llm"
    return "default"
