"""Exporters to llama.cpp: `gguf_graft` (a whole tuned GGUF) and `gguf_adapter` (a llama.cpp LoRA file)."""

import m3i
from m3i.hookspecs import Register


@m3i.hookimpl
def register_exporters(register: Register) -> None:
    """Both exporters."""
    from m3i_gguf.gguf_adapter import GGUFAdapter
    from m3i_gguf.gguf_graft import GGUFGraft

    register("gguf_graft", GGUFGraft)
    register("gguf_adapter", GGUFAdapter)
