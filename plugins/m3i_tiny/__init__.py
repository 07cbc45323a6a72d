"""The tiny target: a DeepSeek-V2 in miniature that this package trains on arithmetic and ships with its weights."""

import m3i

from .target import TinyTarget


@m3i.hookimpl
def register_targets(register: "m3i.hookspecs.Register") -> None:
    """Offer the target `tiny`."""
    register("tiny", TinyTarget)
