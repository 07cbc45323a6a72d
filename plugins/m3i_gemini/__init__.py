"""Observer and judge `gemini`: models of Google, through its own SDK."""

from __future__ import annotations

from typing import Any

import m3i


@m3i.hookimpl
def register_observers(register: Any) -> None:
    """Registers `gemini`."""
    from m3i_gemini.observer import Gemini

    register("gemini", Gemini)


@m3i.hookimpl
def register_judges(register: Any) -> None:
    """Registers `gemini`."""
    from m3i_gemini.judge import GeminiJudge

    register("gemini", GeminiJudge)
