"""`m3i table`: writes every judgement into one table."""

from __future__ import annotations

import sys
from pathlib import Path

from m3i.errors import InputError, M3IError

USAGE = "usage: m3i table FOLDER [--texts]; FOLDER is a run or a sweep, or contains some"


def table_command(arguments: list[str]) -> None:
    """m3i table FOLDER: writes all judgements of runs and sweeps as results.parquet and .csv; --texts adds answers."""
    from m3i.results.table.write import write_judgements

    folders = [a for a in arguments if a != "--texts"]
    if len(folders) != 1 or folders[0].startswith("-"):
        raise M3IError(USAGE)
    if not Path(folders[0]).is_dir():
        raise InputError(f"{folders[0]}: there is no such folder; {USAGE}")
    written = write_judgements(
        Path(folders[0]), texts="--texts" in arguments, note=lambda text: print(f"m3i: {text}", file=sys.stderr)
    )
    for path in written:
        print(path)
