"""Observer and judge `litellm`: a model of any provider that litellm supports, or on your own server."""

import m3i


@m3i.hookimpl
def register_observers(register: m3i.Register) -> None:
    """Offers `litellm`."""
    from .observer import LiteLLM

    register("litellm", LiteLLM)


@m3i.hookimpl
def register_judges(register: m3i.Register) -> None:
    """Offers `litellm`."""
    from .judge import LiteLLMJudge

    register("litellm", LiteLLMJudge)
