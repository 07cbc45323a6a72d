"""Observer and judge `claude`: Anthropic's models, through Anthropic's own SDK."""

import m3i


@m3i.hookimpl
def register_observers(register: m3i.Register) -> None:
    """Offers `claude`."""
    from .observer import Claude

    register("claude", Claude)


@m3i.hookimpl
def register_judges(register: m3i.Register) -> None:
    """Offers `claude`."""
    from .judge import ClaudeJudge

    register("claude", ClaudeJudge)
