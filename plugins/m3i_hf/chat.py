"""What the targets of this plugin share: how prompts reach the model, on which device, in which data type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from m3i import Component, option, require
from m3i.models.huggingface.resources import DTYPE_BYTES


@dataclass(kw_only=True)
class ChatTarget(Component):
    """Base class of targets that may be prompted through a chat template."""

    device: str = "auto"
    """Where the model runs: `auto` (CUDA if available, else the CPU), or a torch device such as `cuda:1`."""
    dtype: str = "auto"
    """Data type of the weights: float32, bfloat16, float16 or `auto` (float32 on the CPU, else the checkpoint's)."""
    chat: bool | None = None
    """Whether prompts go through the tokenizer's chat template; unset: yes if it has one."""
    system_prompt: str = ""
    """System message that opens the chat; empty for the template's own."""
    examples: list[dict[str, str]] = option(factory=list)
    """Worked examples shown before every prompt as earlier turns of the chat: `{prompt: ..., completion: ...}` each.
    They are the same for all problems; exclude them from the problem source (by its option `exclude`, if it has
    one)."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.dtype in ("auto", *DTYPE_BYTES), "target.dtype", self.dtype, f"auto, {', '.join(DTYPE_BYTES)}")
        require(bool(self.device), "target.device", self.device, "auto, cpu, cuda, cuda:0, ...")
        for i, example in enumerate(self.examples):
            place = f"target.examples[{i}]"
            require(set(example) == {"prompt", "completion"}, place, dict(example), "the keys prompt and completion")
        if self.chat is False:
            require(
                not self.examples, "target.examples", self.examples, "none with target.chat=false: they are chat turns"
            )
            require(not self.system_prompt, "target.system_prompt", self.system_prompt, "none with target.chat=false")

    def chat_options(self) -> dict[str, Any]:
        """The options that `m3i.models.huggingface.load.load_folder` takes unchanged."""
        return {
            "device": self.device,
            "chat": self.chat,
            "system_prompt": self.system_prompt,
            "examples": tuple((example["prompt"], example["completion"]) for example in self.examples),
        }
