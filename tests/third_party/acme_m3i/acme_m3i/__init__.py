"""A complete third-party plugin: it needs nothing of M3I but the public modules."""

import m3i

from .attributor import UpdateSize
from .observer import LeastConfident
from .selector import EvenlySpaced


@m3i.hookimpl
def register_observers(register):
    """Offer `observer=acme`."""
    register("acme", LeastConfident)


@m3i.hookimpl
def register_attributors(register):
    """Offer `attributor=acme`."""
    register("acme", UpdateSize)


@m3i.hookimpl
def register_selectors(register):
    """Offer `selector=acme`."""
    register("acme", EvenlySpaced)


@m3i.hookimpl
def register_presets(register):
    """Offer `experiment=acme`."""
    register("pkg://acme_m3i.conf")
