"""Exporters to llama.cpp: `gguf_graft` (a whole tuned GGUF) and `gguf_adapter` (a llama.cpp LoRA file)."""

import m3i


@m3i.hookimpl
def register_exporters(register: m3i.Register) -> None:
    """Offers `gguf_graft` and `gguf_adapter`."""
    from .gguf_adapter import GGUFAdapter
    from .gguf_graft import GGUFGraft

    register("gguf_graft", GGUFGraft)
    register("gguf_adapter", GGUFAdapter)
