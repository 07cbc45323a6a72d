"""`m3i compare`: computes the verdict of a sweep from its stored results."""

from __future__ import annotations

from pathlib import Path

from m3i.errors import M3IError

USAGE = "usage: m3i compare SWEEP; SWEEP is the folder of a sweep or multirun, e.g. sweeps/control-1a2b3c4d"


def compare_command(arguments: list[str]) -> None:
    """m3i compare SWEEP: tests the attributed arm against its controls, using only stored results."""
    from m3i.sweep.write import write_comparison

    if arguments in (["-h"], ["--help"]):
        print(USAGE)
        return
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise M3IError(USAGE)
    write_comparison(Path(arguments[0]))
