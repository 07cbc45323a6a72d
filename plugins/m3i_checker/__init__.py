"""The observer `checker`: the problem source's own verifier, which needs no key and no model."""

import m3i


@m3i.hookimpl
def register_observers(register: m3i.Register) -> None:
    """Offers `checker`."""
    from .observer import Checker

    register("checker", Checker)
