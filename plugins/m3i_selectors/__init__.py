"""Selectors: `attribution`, `random`, `manual`, `all`, `bottom` and `none`."""

from __future__ import annotations

from typing import Any

import m3i


@m3i.hookimpl
def register_selectors(register: Any) -> None:
    """Registers the six selectors."""
    from m3i_selectors.all import AllLayers
    from m3i_selectors.attribution import TopLayers
    from m3i_selectors.bottom import BottomLayers
    from m3i_selectors.manual import ManualLayers
    from m3i_selectors.none import ShamLayers
    from m3i_selectors.random import RandomLayers

    register("attribution", TopLayers)
    register("random", RandomLayers)
    register("manual", ManualLayers)
    register("all", AllLayers)
    register("bottom", BottomLayers)
    register("none", ShamLayers)
