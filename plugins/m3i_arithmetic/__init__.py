"""Multi-step arithmetic with written-out steps: problems, reference solutions and a verifier that checks every step."""

import m3i

from .source import ArithmeticProblems


@m3i.hookimpl
def register_problems(register: "m3i.hookspecs.Register") -> None:
    """Offer the source `arithmetic`."""
    register("arithmetic", ArithmeticProblems)
