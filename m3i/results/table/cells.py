"""Values as cells of a CSV file, safe in a spreadsheet.

A spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break as a formula, quoted or not, and
models and users wrote some of the text. Such a cell gets a leading apostrophe, and so does one that begins with an
apostrophe: removing one leading apostrophe restores the text. Parquet files hold the text itself.
Source: OWASP, CSV Injection (the list of characters, full-width forms included).
"""

from __future__ import annotations

import re

from m3i.results.table.columns import Kind

BEGINS_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠\t\r\n]|'")
UNREADABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Control characters that CSV readers drop or that make them cut off a cell; tabs and line feeds are kept."""


def clean(value: object) -> object:
    """The value in a form that UTF-8 can encode: half a surrogate pair (from a cut token) becomes a visible escape."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def cell(value: object, kind: Kind) -> str:
    """One cell; empty for a missing value. Numbers are written so that reading them back gives the same number."""
    if value is None:
        return ""
    if kind is Kind.FLAG:
        return "true" if value else "false"
    if kind is not Kind.TEXT:
        return repr(value)
    text = UNREADABLE.sub(lambda match: f"\\x{ord(match.group()):02x}", str(value))
    return f"'{text}" if BEGINS_FORMULA.match(str(value)) else text
