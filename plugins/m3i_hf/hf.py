"""The target `hf`: a causal language model from a local folder or from the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from m3i import LoadedTarget, TargetInfo, require
from m3i.models.huggingface.facts import describe_folder

from .chat import ChatTarget
from .hub import is_local, pinned_snapshot


@dataclass(kw_only=True)
class HfTarget(ChatTarget):
    """Any causal language model whose architecture can be exported, by local path or hub id.

    The folder holds `config.json`, a tokenizer and weights as safetensors. Code that ships with a repository is never
    run.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "safetensors")

    path: str
    """Local folder, or `owner/name` on the hub."""
    revision: str = ""
    """Commit on the hub, 40 hexadecimal digits; required for a hub id, since a branch can move. A local folder is
    identified by the hash of its files instead."""
    family: str = ""
    """The model's maker, guessed from its name if empty; a judge or observer of the same family is flagged."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        require(bool(self.path), "target.path", self.path, "a folder, or owner/name on the hub")
        local = is_local(self.path)
        require(not (local and self.revision), "target.revision", self.revision, "nothing with a local target.path")

    def describe(self) -> TargetInfo:
        """Facts from the configuration and the weights' headers; fetches a hub repository that is not in the cache."""
        return describe_folder(
            self.folder(),
            name=self.path if not is_local(self.path) else Path(self.path).expanduser().resolve().name,
            revision=self.revision,
            family=self.family,
            device=self.device,
            dtype=self.dtype,
        )

    def load(self) -> LoadedTarget:
        """The model and its tokenizer."""
        from m3i.models.huggingface.load import load_folder

        return load_folder(self.describe(), **self.chat_options())

    def folder(self) -> Path:
        """The folder that holds the files."""
        if is_local(self.path):
            return Path(self.path).expanduser()
        return pinned_snapshot(self.path, self.revision, device=self.device, dtype=self.dtype)
