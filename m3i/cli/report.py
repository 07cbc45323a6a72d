"""`m3i report`: renders the page of a stored result."""

from __future__ import annotations

from pathlib import Path

from m3i.errors import M3IError


def report_command(arguments: list[str]) -> None:
    """m3i report FOLDER: renders report.html again from a run's result.json or a sweep's sweep.json."""
    from m3i.report import render_report, render_sweep
    from m3i.results.stored import read_result
    from m3i.store.files import write_texts
    from m3i.sweep.stored import read_sweep

    if len(arguments) != 1:
        raise M3IError("usage: m3i report FOLDER; FOLDER holds result.json or sweep.json")
    folder = Path(arguments[0])
    sweep, report = folder / "sweep.json", folder / "report.html"
    page = render_sweep(read_sweep(sweep)) if sweep.is_file() else render_report(read_result(folder / "result.json"))
    write_texts({report: page})
    print(report)
