"""The observer `checker`: the problem source's own verifier, which needs no key and no model."""

from __future__ import annotations

from typing import Any

import m3i


@m3i.hookimpl
def register_observers(register: Any) -> None:
    """Registers `checker`."""
    from m3i_checker.observer import Checker

    register("checker", Checker)
