"""Observer and judge `gemini`: Google's models, through Google's own SDK."""

import m3i


@m3i.hookimpl
def register_observers(register: m3i.Register) -> None:
    """Offers `gemini`."""
    from .observer import Gemini

    register("gemini", Gemini)


@m3i.hookimpl
def register_judges(register: m3i.Register) -> None:
    """Offers `gemini`."""
    from .judge import GeminiJudge

    register("gemini", GeminiJudge)
