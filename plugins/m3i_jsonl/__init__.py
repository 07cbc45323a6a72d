"""The user's own problems, from a JSONL file."""

import m3i


@m3i.hookimpl
def register_problems(register: m3i.Register) -> None:
    """Offers `jsonl`."""
    from .source import JsonlProblems

    register("jsonl", JsonlProblems)
