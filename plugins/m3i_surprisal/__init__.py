"""The observer `surprisal`: the model's own surprise, calibrated on its right traces."""

from __future__ import annotations

from typing import Any

import m3i


@m3i.hookimpl
def register_observers(register: Any) -> None:
    """Registers `surprisal`."""
    from m3i_surprisal.observer import Surprisal

    register("surprisal", Surprisal)
