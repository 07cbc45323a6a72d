"""Multi-step arithmetic with written-out steps: problems, reference solutions and a verifier that checks each step."""

import m3i


@m3i.hookimpl
def register_problems(register: m3i.Register) -> None:
    """Offers `arithmetic`."""
    from .source import ArithmeticProblems

    register("arithmetic", ArithmeticProblems)
