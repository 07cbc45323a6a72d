"""`m3i compare SWEEP`: from stored results to sweep.json, the page, the table of judgements and a summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from m3i.errors import M3IError

USAGE = "usage: m3i compare SWEEP; SWEEP is the folder of a sweep or multirun, e.g. sweeps/control-1a2b3c4d"


def compare_command(arguments: list[str]) -> None:
    """m3i compare SWEEP: tests the attributed arm against its controls, from the stored results alone."""
    if arguments in (["-h"], ["--help"]):
        print(USAGE)
        return
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise M3IError(USAGE)
    compare(Path(arguments[0]))


def compare(folder: Path) -> dict[str, Any]:
    """Writes sweep.json, report.html and the judgements of a sweep folder, and prints the summary.

    The page is drawn from the file's content, so its numbers are the file's.

    Returns:
        The content of sweep.json.

    Raises:
        InputError: As `m3i.sweep.load.load_sweep`.
    """
    from m3i.export import write_judgements
    from m3i.report import render_sweep
    from m3i.report.texts import visible
    from m3i.sweep.compare import build_sweep, to_json
    from m3i.sweep.load import load_sweep
    from m3i.sweep.words import summary_lines

    text = to_json(build_sweep(load_sweep(folder)))
    document: dict[str, Any] = json.loads(text)
    page = folder / "report.html"
    # A lone surrogate (half an emoji from a cut token) cannot be written as UTF-8: it becomes a visible escape.
    (folder / "sweep.json").write_text(text, encoding="utf-8", errors="backslashreplace")
    page.write_text(render_sweep(document), encoding="utf-8", errors="backslashreplace")
    written = [folder / "sweep.json", page, *write_judgements(folder)]
    for line in summary_lines(document, written=written):
        print(visible(line))
    return document
