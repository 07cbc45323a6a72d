"""The user's own problems, from a JSONL file."""

import m3i

from .source import JsonlProblems


@m3i.hookimpl
def register_problems(register: "m3i.hookspecs.Register") -> None:
    """Offer the source `jsonl`."""
    register("jsonl", JsonlProblems)
