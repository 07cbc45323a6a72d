"""Observer and judge `llamacpp`: a local GGUF model, without a key or a network."""

import m3i


@m3i.hookimpl
def register_observers(register: m3i.Register) -> None:
    """Offers `llamacpp`."""
    from .observer import LlamaCppObserver

    register("llamacpp", LlamaCppObserver)


@m3i.hookimpl
def register_judges(register: m3i.Register) -> None:
    """Offers `llamacpp`."""
    from .judge import LlamaCppJudge

    register("llamacpp", LlamaCppJudge)
