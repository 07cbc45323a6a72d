"""Procedurally generated reasoning problems with their own verifiers, from the PyPI package `reasoning-gym`."""

import m3i

from .source import ReasoningGymProblems


@m3i.hookimpl
def register_problems(register: "m3i.hookspecs.Register") -> None:
    """Offer the source `reasoning_gym`."""
    register("reasoning_gym", ReasoningGymProblems)
