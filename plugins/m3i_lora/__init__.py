"""Low-rank preference training of the selected layers: the trainer `dpo_lora`."""

import m3i

from .dpo_lora import DpoLora


@m3i.hookimpl
def register_trainers(register: m3i.hookspecs.Register) -> None:
    """Offer `dpo_lora`."""
    register("dpo_lora", DpoLora)
