"""Procedurally generated reasoning problems with their own verifiers, from the PyPI package `reasoning-gym`."""

import m3i


@m3i.hookimpl
def register_problems(register: m3i.Register) -> None:
    """Offers `reasoning_gym`."""
    from .source import ReasoningGymProblems

    register("reasoning_gym", ReasoningGymProblems)
