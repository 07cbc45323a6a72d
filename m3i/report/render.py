"""Renders `result.json` to one HTML page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from m3i.report import figures, texts
from m3i.result import words

POLICY = "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
"""Nothing is loaded and no script runs; the one style sheet is named by its hash."""


def render_report(result: Mapping[str, Any]) -> str:
    """The report page from the content of `result.json` alone: the same file always gives the same page.

    Args:
        result: What `build_result` returned, or `json.load` of a `result.json`.

    Raises:
        jinja2.UndefinedError: When the file lacks a field (written by another version: see its `format`).
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("m3i.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=texts.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_or_dash(words.percent),
        points=_or_dash(words.points),
        p=_or_dash(words.p_phrase),
        two=_or_dash(texts.two),
        number=_or_dash(texts.number),
        short=_or_dash(texts.short),
        seconds=_or_dash(texts.seconds),
        magnitude=_or_dash(figures.magnitude),
        sentence=texts.sentence,
    )
    environment.globals.update(figures=figures, texts=texts, words=words)
    style = resources.files("m3i.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment.get_template("report.html.j2")
    return page.render(r=result, style=style, policy=POLICY.format(style=digest), clip=texts.text_limit(result))


def _or_dash(function: Any) -> Any:
    def filtered(value: Any, *arguments: Any) -> str:
        return "–" if value is None else str(function(value, *arguments))

    return filtered
