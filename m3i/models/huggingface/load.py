"""Loads a Hugging Face model folder as a target: evaluation mode, gradients off, no weight missing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from m3i.artifacts import TargetInfo
from m3i.errors import ConfigError, InputError
from m3i.models.huggingface.facts import describe_config, describe_folder
from m3i.models.huggingface.resources import require_memory, require_room
from m3i.models.target import LoadedTarget

__all__ = ["describe_config", "describe_folder", "load_folder", "load_tokenizer", "meta_model", "require_memory"]

ATTENTION = "eager"
"""Attention implementation in transformers. Only `eager` returns attention weights, which telemetry reads; using one
implementation in every stage keeps their numbers comparable."""


def load_folder(
    info: TargetInfo,
    *,
    device: str = "auto",
    chat: bool | None = None,
    system_prompt: str = "",
    examples: tuple[tuple[str, str], ...] = (),
    gguf: str = "",
    tokenizer: Any = None,
) -> LoadedTarget:
    """Loads the model and tokenizer of a folder, ready for every stage.

    Args:
        info: From `describe_folder`; `info.files["model"]` is the folder, `info.dtype` the data type.
        device: A torch device; `auto` uses `info.device`.
        chat: Whether prompts go through the tokenizer's chat template; None: only if it has one.
        system_prompt: System message of the chat; empty for the template's own.
        examples: Worked examples (prompt, completion), shown as earlier turns of the chat.
        gguf: File in the folder whose weights are dequantised and loaded; empty for safetensors.
        tokenizer: Used instead of the folder's own.

    Raises:
        InputError: Weights are missing, or the device has too little memory.
        ConfigError: torch does not have the device, or a chat template is needed and there is none.
    """
    place = info.device if device == "auto" else device
    _require_device(info, place)
    folder = Path(info.files["model"])
    if tokenizer is None:
        tokenizer = load_tokenizer(folder)
    model = _load_dense(info, folder, gguf)
    if info.n_experts and place.partition(":")[0] == "cpu":
        model.set_experts_implementation("eager")  # on CPUs the others are slower, by a factor of 1.4 or more
    model.to(place)
    model.eval()
    model.requires_grad_(False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if (chat or examples or system_prompt) and not has_template:
        raise ConfigError(
            f"the tokenizer of {info.name} has no chat template; leave out target.chat, target.system_prompt and "
            "target.examples, which need one"
        )
    return LoadedTarget(
        info=info,
        model=model,
        tokenizer=tokenizer,
        stop_ids=_stop_ids(model, tokenizer, info),
        chat=has_template if chat is None else chat,
        system_prompt=system_prompt,
        examples=examples,
    )


def _load_dense(info: TargetInfo, folder: Path, gguf: str) -> Any:
    """Loads the model with every weight as a plain tensor of the requested data type."""
    import torch
    import transformers

    source: dict[str, Any] = {"use_safetensors": True}
    if gguf:
        source = {"gguf_file": gguf}
        if hasattr(transformers, "GgufConfig"):  # new in 5.2x; without it, weights may stay packed
            source["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with _without_progress_bars():
        # Code shipped in a model folder is never run: trust_remote_code is always False and not an option.
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, info.dtype),
            attn_implementation=ATTENTION,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **source,
        )
    model, report = loaded
    _require_complete(folder, report)
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:  # the weights are plain now, but trainers reject a model still marked as quantised
        quantizer.remove_quantization_config(model)
    other = sorted(name for name, tensor in model.named_parameters() if tensor.dtype != getattr(torch, info.dtype))
    if other:
        raise ConfigError(f"target {info.name}: some weights were not loaded as {info.dtype}, the first is {other[0]}")
    return model


def load_tokenizer(folder: Path, *, gguf: str = "") -> Any:
    """Loads the tokenizer of a folder, or of a GGUF file in it. Raises InputError if there is none."""
    from transformers import AutoTokenizer

    try:
        with _without_progress_bars():
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **({"gguf_file": gguf} if gguf else {})
            )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"target folder {folder} has no tokenizer that transformers can load ({reason})") from None


def meta_model(config: dict[str, Any]) -> Any:
    """Builds the model that a configuration describes on torch's `meta` device: names and shapes, without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {key: value for key, value in config.items() if key != "auto_map"}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**fields), trust_remote_code=False, attn_implementation=ATTENTION
        )


def _require_device(info: TargetInfo, place: str) -> None:
    """Raises ConfigError if torch lacks the device, InputError if its free memory is too small for the target."""
    import torch

    try:
        kind = torch.device(place).type
    except RuntimeError:
        raise ConfigError(f"target.device = {place!r}: torch knows no such device; give auto, cpu or cuda") from None
    if kind == "cpu":
        require_memory(info)
    elif kind == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"target.device = {place!r}: torch {torch.__version__} finds no CUDA device; give target.device=cpu"
            )
        require_room(info, torch.cuda.mem_get_info(torch.device(place))[0], f"memory on {place}")
    elif kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"target.device = {place!r}: this machine does not have one; give target.device=cpu")


def _require_complete(folder: Path, report: dict[str, Any]) -> None:
    """Raises InputError if any parameter was left at its random initial value, about which transformers only warns."""
    missing = sorted(report["missing_keys"]) + sorted(str(m[0]) for m in report.get("mismatched_keys", ()))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"weights missing from {folder}, or of the wrong shape: {', '.join(missing[:3])}{more}")


def _stop_ids(model: Any, tokenizer: Any, info: TargetInfo) -> tuple[int, ...]:
    """Returns every id that ends a completion, the tokenizer's end-of-sequence first."""
    ids: list[int] = []
    for value in (tokenizer.eos_token_id, model.generation_config.eos_token_id, model.config.eos_token_id):
        for token in value if isinstance(value, (list, tuple)) else [value]:
            if token is not None and int(token) not in ids:
                ids.append(int(token))
    if not ids:
        raise InputError(f"target {info.name} names no end-of-sequence token, so no completion would ever end")
    return tuple(ids)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Hides the progress bars of transformers, which would break up ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # no switch turns off the bar of the GGUF reader
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
