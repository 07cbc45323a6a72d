"""`m3i report`: renders the page of a stored result."""

from __future__ import annotations

from pathlib import Path

from m3i.errors import M3IError


def report_command(arguments: list[str]) -> None:
    """m3i report FOLDER: renders report.html again from a run's result.json or a sweep's sweep.json."""
    from m3i.report import render_report, render_sweep
    from m3i.results.build import FORMAT
    from m3i.store.files import read_object, write_texts
    from m3i.sweep.compare import FORMAT as SWEEP_FORMAT
    from m3i.sweep.load import UNSHOWABLE

    if len(arguments) != 1:
        raise M3IError("usage: m3i report FOLDER; FOLDER holds result.json or sweep.json")
    sweep = Path(arguments[0]) / "sweep.json"
    of_sweep = sweep.is_file()
    file, version = (sweep, SWEEP_FORMAT) if of_sweep else (sweep.with_name("result.json"), FORMAT)
    document = read_object(file)
    if document.get("format") != version:
        raise M3IError(f"{file}: format {document.get('format')!r}, this version reads {version}; make it again")
    try:
        page = render_sweep(document) if of_sweep else render_report(document)
    except UNSHOWABLE as error:
        raise M3IError(f"{file}: a field is missing or has the wrong type ({error}); make it again") from error
    write_texts({file.with_name("report.html"): page})
    print(file.with_name("report.html"))
