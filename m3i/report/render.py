"""Renders `result.json` and `sweep.json`, each to one HTML page."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from m3i.report import figures, sweep_figures, sweep_texts, texts
from m3i.wording import formats
from m3i.wording import run as words
from m3i.wording.sweep import limits, numbers

POLICY = (
    "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"
)
"""Nothing is loaded; the only style sheet and the only script, both ours, are allowed by their hashes."""


def render_report(result: Mapping[str, Any]) -> str:
    """The page of a run from the content of `result.json` alone: the same file always gives the same page.

    Args:
        result: What `build_result` returned, or `json.load` of a `result.json`.

    Raises:
        jinja2.UndefinedError: When the file lacks a field (written by another version: see its `format`).
    """
    return _page("run.html.j2", result, result)


def render_sweep(sweep: Mapping[str, Any]) -> str:
    """The page of a sweep from the content of `sweep.json` alone: the same file always gives the same page.

    Args:
        sweep: What `m3i.sweep.compare.build_sweep` returned, or `json.load` of a `sweep.json`.

    Raises:
        jinja2.UndefinedError: When the file lacks a field (written by another version: see its `format`).
    """
    return _page("sweep.html.j2", sweep, sweep["run"])


def _page(body: str, document: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The page whose body is a template; `doc` is the whole document, `r` the run whose layers and traces it shows."""
    style, script = _own("report.css"), _own("report.js")
    return str(
        _environment()
        .get_template("page.html.j2")
        .render(
            body=body,
            doc=document,
            r=run,
            style=style,
            script=script,
            policy=POLICY.format(style=_digest(style), script=_digest(script)),
            clip=texts.text_limit(run),
        )
    )


@functools.cache
def _environment() -> Any:
    """The templates; they are compiled once a process, which takes longer than a page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("m3i.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=formats.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_or_dash(formats.percent),
        points=_or_dash(formats.points),
        p=_or_dash(formats.p_phrase),
        two=_or_dash(texts.two),
        level=_or_dash(_level),
        shift=_or_dash(_shift),
        number=_or_dash(texts.number),
        short=_or_dash(texts.short),
        seconds=_or_dash(texts.seconds),
        magnitude=_or_dash(figures.magnitude),
        sentence=texts.sentence,
        value=texts.sort_value,
        change=texts.change,
        n_times=texts.n_times,
    )
    environment.globals.update(
        figures=figures,
        sweep_figures=sweep_figures,
        sweep_texts=sweep_texts,
        texts=texts,
        words=words,
        formats=formats,
        limits=limits,
    )
    return environment


def _own(name: str) -> str:
    return resources.files("m3i.report").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _level(value: float, kind: str) -> str:
    return numbers.level(kind, value)


def _shift(value: float, kind: str) -> str:
    return numbers.shift(kind, value)


def _or_dash(function: Any) -> Any:
    def filtered(value: Any, *arguments: Any) -> str:
        return "–" if value is None else str(function(value, *arguments))

    return filtered
