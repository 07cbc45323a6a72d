"""Writes sweep.json, the page, the table of judgements and a summary from stored results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_comparison(folder: Path) -> dict[str, Any]:
    """Writes sweep.json, report.html and the judgements of a sweep folder, and prints the summary.

    The page is drawn from the content of sweep.json, so their numbers agree.

    Returns:
        The content of sweep.json.

    Raises:
        InputError: As `m3i.sweep.load.load_sweep`; or the page cannot be drawn, or a file cannot be written. The
            earlier files then stay as they were.
    """
    from m3i.report import render_sweep
    from m3i.results.table import write_judgements
    from m3i.store.files import put, replacing
    from m3i.sweep.compare import build_sweep, to_json
    from m3i.sweep.load import load_sweep
    from m3i.wording.formats import visible
    from m3i.wording.sweep.verdict import summary_lines

    sweep = load_sweep(folder)
    text = to_json(build_sweep(sweep))
    document: dict[str, Any] = json.loads(text)
    files = [folder / "sweep.json", folder / "report.html"]
    page = render_sweep(document)
    with replacing(*files) as drafts:
        for draft, content in zip(drafts, (text, page), strict=True):
            put(draft, content)
        tables = write_judgements(folder)
    written = [*files, *tables]
    for line in summary_lines(document, written=written):
        print(visible(line))
    return document
