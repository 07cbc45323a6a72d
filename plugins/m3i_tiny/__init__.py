"""The tiny target: a miniature DeepSeek-V2 that this package trains on arithmetic and ships with its weights."""

import m3i


@m3i.hookimpl
def register_targets(register: m3i.Register) -> None:
    """Offers `tiny`."""
    from .target import TinyTarget

    register("tiny", TinyTarget)
