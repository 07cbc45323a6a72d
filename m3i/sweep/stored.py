"""Reads a stored sweep.json strictly, for everything that goes on from it: the page, trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from m3i.errors import InputError
from m3i.results.stored import damage, misfit
from m3i.store.files import read_object
from m3i.sweep.compare import FORMAT

REMEDY = "restore the file, or compare the sweep again"


def read_sweep(file: Path) -> dict[str, Any]:
    """The content of a sweep.json that this version can go on from.

    Raises:
        InputError: It cannot; the message names the file and the field, and what to do.
    """
    from m3i.sweep.schema import Sweep

    sweep = read_object(file)
    if sweep.get("format") != FORMAT:
        raise InputError(
            f"{file}: format {sweep.get('format')!r}, this version reads {FORMAT}; compare the sweep again"
        )
    wrong = misfit(Sweep, sweep)
    if not wrong and (of_run := damage(sweep["run"])):
        wrong = f"run.{of_run}"
    if wrong:
        raise InputError(f"{file}: {wrong}; {REMEDY}")
    return sweep
