"""The target `deepseek-v2-lite`: DeepSeek's 15.7 B mixture-of-experts model with latent attention, pinned."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from m3i import TargetInfo, require
from m3i.models.huggingface.facts import describe_config

from .hf import HfTarget
from .hub import is_local

REVISIONS = {
    "deepseek-ai/DeepSeek-V2-Lite": "604d5664dddd88a0433dbae533b7fe9472482de0",
    "deepseek-ai/DeepSeek-V2-Lite-Chat": "85864749cd611b4353ce1decdb286193298f64c7",
}
"""Repository → the commit that this preset stands for."""


@dataclass(kw_only=True)
class DeepseekV2Lite(HfTarget):
    """DeepSeek-V2-Lite (27 layers, 15.7 B parameters, 2.7 B active); needs the hub or a local copy, and a GPU.

    Source: DeepSeek-V2, 2405.04434, appendix B.
    """

    path: str = "deepseek-ai/DeepSeek-V2-Lite-Chat"
    """`deepseek-ai/DeepSeek-V2-Lite-Chat`, `deepseek-ai/DeepSeek-V2-Lite`, or a local copy of either."""
    revision: str = ""
    """Commit on the hub, 40 hexadecimal digits; empty for the one this preset was written for."""
    family: str = "deepseek"
    """The model's maker; a judge or observer of the same family is flagged."""

    def __post_init__(self) -> None:
        """Checks the values, and pins the revision."""
        local = is_local(self.path)
        expected = f"{' or '.join(REVISIONS)}, or a folder"
        require(local or self.path in REVISIONS, "target.path", self.path, expected)
        if not local and not self.revision:
            self.revision = REVISIONS[self.path]
        super().__post_init__()


def published_config() -> dict[str, Any]:
    """DeepSeek-V2-Lite's `config.json` as published; the plugin ships it byte for byte."""
    return dict(json.loads((files(__package__) / "deepseek_v2_lite.json").read_text(encoding="utf-8")))


def published_info() -> TargetInfo:
    """Target facts from the published configuration, without weight files or the hub."""
    name = "deepseek-ai/DeepSeek-V2-Lite"
    config = published_config()
    return describe_config(
        config, name=name, revision=REVISIONS[name], family="deepseek", device="cuda", dtype="bfloat16"
    )
