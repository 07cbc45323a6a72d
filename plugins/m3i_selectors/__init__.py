"""Selectors: `attribution`, `random`, `manual`, `all`, `bottom` and `none`."""

import m3i


@m3i.hookimpl
def register_selectors(register: m3i.Register) -> None:
    """Offers `attribution`, `random`, `manual`, `all`, `bottom` and `none`."""
    from .all import AllLayers
    from .attribution import TopLayers
    from .bottom import BottomLayers
    from .manual import ManualLayers
    from .none import ShamLayers
    from .random import RandomLayers

    register("attribution", TopLayers)
    register("random", RandomLayers)
    register("manual", ManualLayers)
    register("all", AllLayers)
    register("bottom", BottomLayers)
    register("none", ShamLayers)
