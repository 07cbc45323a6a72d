"""Observer and judge `litellm`: a model of any provider that litellm knows, or of a server of one's own."""

from __future__ import annotations

from typing import Any

import m3i


@m3i.hookimpl
def register_observers(register: Any) -> None:
    """Registers `litellm`."""
    from m3i_litellm.observer import LiteLLM

    register("litellm", LiteLLM)


@m3i.hookimpl
def register_judges(register: Any) -> None:
    """Registers `litellm`."""
    from m3i_litellm.judge import LiteLLMJudge

    register("litellm", LiteLLMJudge)
