"""Low-rank preference training of the selected layers: the trainer `dpo_lora`."""

import m3i


@m3i.hookimpl
def register_trainers(register: m3i.Register) -> None:
    """Offers `dpo_lora`."""
    from .dpo_lora import DpoLora

    register("dpo_lora", DpoLora)
