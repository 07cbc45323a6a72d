"""Observer and judge `llamacpp`: a local GGUF model, without a key or a network."""

from __future__ import annotations

from typing import Any

import m3i


@m3i.hookimpl
def register_observers(register: Any) -> None:
    """Registers `llamacpp`."""
    from m3i_llamacpp.observer import LlamaCppObserver

    register("llamacpp", LlamaCppObserver)


@m3i.hookimpl
def register_judges(register: Any) -> None:
    """Registers `llamacpp`."""
    from m3i_llamacpp.judge import LlamaCppJudge

    register("llamacpp", LlamaCppJudge)
