"""Observer and judge `claude`: models of Anthropic, through its own SDK."""

from __future__ import annotations

from typing import Any

import m3i


@m3i.hookimpl
def register_observers(register: Any) -> None:
    """Registers `claude`."""
    from m3i_claude.observer import Claude

    register("claude", Claude)


@m3i.hookimpl
def register_judges(register: Any) -> None:
    """Registers `claude`."""
    from m3i_claude.judge import ClaudeJudge

    register("claude", ClaudeJudge)
