"""Writes the files that a run leaves in its folder: `result.json` and `report.html`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m3i.results.build import to_json
from m3i.store.files import write_texts


def write_run(result: Mapping[str, Any], run_dir: Path) -> Path:
    """Writes `result.json` and `report.html` into `run_dir`, both or neither, and returns the path of the page.

    The page is rendered from the content of result.json, so the two show the same numbers. A lone surrogate (half an
    emoji from a cut token) cannot be written as UTF-8 and becomes a visible escape.
    """
    from m3i.report import render_report

    run_dir.mkdir(parents=True, exist_ok=True)
    text = to_json(result)
    page = render_report(json.loads(text))
    report = run_dir / "report.html"
    write_texts({report: page, run_dir / "result.json": text})  # the result last: it marks the run as done
    return report
