"""The target `tiny`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from m3i import Component, require
from m3i.models.huggingface.facts import describe_folder
from m3i.models.huggingface.resources import DTYPE_BYTES

if TYPE_CHECKING:
    from m3i import LoadedTarget, TargetInfo

MODEL_FOLDER = Path(__file__).parent / "model"
"""The shipped weights, configuration and tokenizer."""


@dataclass(kw_only=True)
class TinyTarget(Component):
    """A DeepSeek-V2 of 2.4 million parameters that works out arithmetic step by step; its weights come with M3I.

    12 layers with MLA, the first dense, the others mixtures of experts; trained with `python -m m3i_tiny.train` on
    correct solutions of problems that no experiment can draw. Its mistakes are its own.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers")

    device: str = "cpu"
    """Where the model runs: a torch device, or `auto`. A model this small gains nothing from a GPU."""
    dtype: str = "float32"
    """Data type of the weights in memory: float32, bfloat16 or float16."""

    def __post_init__(self) -> None:
        """Checks the options."""
        require(bool(self.device), "target.device", self.device, "cpu, auto, cuda, cuda:0, ...")
        require(self.dtype in DTYPE_BYTES, "target.dtype", self.dtype, ", ".join(DTYPE_BYTES))

    def describe(self) -> "TargetInfo":
        """Facts from the shipped configuration."""
        return describe_folder(MODEL_FOLDER, name="tiny", family="m3i", device=self.device, dtype=self.dtype)

    def load(self) -> "LoadedTarget":
        """The shipped model and its tokenizer."""
        from m3i.models.huggingface.load import load_folder

        return load_folder(self.describe(), device=self.device, chat=False)
