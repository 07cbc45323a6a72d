"""The observer `surprisal`: the model's own surprise, calibrated on its correct traces."""

import m3i


@m3i.hookimpl
def register_observers(register: m3i.Register) -> None:
    """Offers `surprisal`."""
    from .observer import Surprisal

    register("surprisal", Surprisal)
