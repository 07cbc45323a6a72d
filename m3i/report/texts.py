"""Text for the page: numbers in words, answers with their differences marked, traces with their findings marked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from m3i.wording.formats import money, visible

MOMENT = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[ T](?P<time>\d\d:\d\d):\d\d"
    r"(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)",
    re.ASCII,
)
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
BUDGET = 1_000_000
"""Bytes of prompts and answers that a page may hold; beyond that, all of them are shortened."""
TRACES_BUDGET = 1_000_000
"""Bytes that the table of train traces may take up on a page."""
TRACE_BYTES = 60_000
"""Bytes of one train trace's text on the page."""
PROMPT = 4_000
"""Characters of a train problem's prompt shown with its trace."""
ROWS = 1_000
"""Rows that a table on the page may have."""


def number(value: float) -> str:
    """Whole numbers with separators, others with three significant digits."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}".replace("-", "−")
    return (f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}").replace("-", "−", 1)


def two(value: float) -> str:
    """Two decimals and a true minus sign, for kappa, alpha and correlations."""
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def sort_value(value: float | None) -> str:
    """A number for the page's script to sort by; empty if unknown."""
    return "" if value is None else repr(value)


def paid(calls: Mapping[str, Any]) -> str:
    """What a model's calls cost; a dash if none was made."""
    return money(calls["cost_usd"], calls["n_unpriced"]) if calls["n_calls"] else "–"


def unscored(scores: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Why an attributor scored no trace: reasons for leaving findings out, most frequent first, or what is missing."""
    reasons: Counter[str] = Counter()
    for reason, n in scores["left_out"].items():
        reasons[reason.rpartition(": ")[2]] += n
    if set(reasons) == {"names no layer"}:
        return "no finding names a layer"
    if reasons:
        return "; ".join(f"{n} × {reason}" for reason, n in reasons.most_common(3))
    if not any(observer["n_findings"] for observer in result["observers"].values()):
        return "no observer found anything"
    return "no finding reached it" if result["contrasts"]["n"] else "no contrast"


def ledger_tokens(row: Mapping[str, Any]) -> tuple[int, float | None]:
    """Prompt tokens of a ledger row, and the share of them that the provider read from its cache."""
    cached = row["cache_read_tokens"]
    total = row["input_tokens"] + row["cache_write_tokens"] + cached
    return total, cached / total if total else None


def short(value: str) -> str:
    """The beginning of an id."""
    return value[:12]


def seconds(value: float) -> str:
    """`0.4 s`, `38 s`, `3 min 12 s`, `2 h 5 min`."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    if value < 7200:
        return f"{int(value) // 60} min {int(value) % 60} s"
    return f"{int(value) // 3600} h {int(value) % 3600 // 60} min"


def text_limit(result: Mapping[str, Any]) -> int:
    """Characters to keep of each prompt and answer so that all fit the page's budget; 0 if they fit in full."""
    rows = result["problems"]["rows"][:ROWS]
    shown = [text for row in rows for text in (row["prompt"], row["base"]["text"], row["tuned"]["text"])]
    if sum(map(len, shown)) <= BUDGET and sum(map(_n_bytes, shown)) <= BUDGET:
        return 0
    limit = BUDGET // len(shown)  # every character takes at least one byte
    while limit > 40 and sum(_n_bytes(text[:limit]) for text in shown) > BUDGET:
        limit = 3 * limit // 4
    return limit


def _n_bytes(text: str) -> int:
    """Size of a text on the page in UTF-8, escaped and with hidden characters spelled out."""
    from markupsafe import escape

    return len(str(escape(visible(text))).encode())


def clipped(value: str, limit: int) -> str:
    """A text cut to the limit, followed by an ellipsis and the number of missing characters."""
    if not limit or len(value) <= limit:
        return value
    return f"{value[:limit]}… [{len(value) - limit:,} more characters in result.json]"


def capital(value: str) -> str:
    """A text with its first letter capitalised, the rest unchanged."""
    return value[:1].upper() + value[1:]


def sentence(value: str) -> str:
    """A text with its first letter capitalised and a full stop at its end."""
    value = capital(value.strip())
    return value + ("" if not value or value[-1] in ".!?…" else ".")


def brief(value: str, limit: int) -> str:
    """The beginning of a text on one line."""
    line = " ".join(value.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def divergence(one: str, other: str) -> int:
    """Length of the common prefix, moved back to the start of a line or word."""
    common = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    if common == max(len(one), len(other)):
        return common
    back = max(one.rfind(mark, 0, common) for mark in (" ", "\n"))
    return back + 1 if back >= 0 else 0


def outcomes(result: Mapping[str, Any]) -> list[str]:
    """The first judge's outcome for each row; `missing` if it gave no verdict."""
    first = next(iter(result["judges"]))
    return [row["verdicts"].get(first, {"outcome": "missing"})["outcome"] for row in result["problems"]["rows"]]


def change(row: Mapping[str, Any]) -> str:
    """Filter value: what training did to the correctness of one answer."""
    if row["base"]["correct"] == row["tuned"]["correct"]:
        return "right" if row["tuned"]["correct"] else "wrong"
    return "fixed" if row["tuned"]["correct"] else "broken"


def marked(text: str, findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The text cut at the findings' ends: pieces with the numbers (from 1) of findings that cover or end them."""
    edges = {0, len(text)}
    for finding in findings:
        edges |= {min(max(finding["start"], 0), len(text)), min(max(finding["end"], 0), len(text))}
    places = sorted(edges)
    pieces = []
    for start, end in pairwise(places):
        covering = [i for i, f in enumerate(findings, start=1) if f["start"] <= start and end <= f["end"]]
        ending = [i for i in covering if min(findings[i - 1]["end"], len(text)) == end]
        pieces.append({"text": text[start:end], "findings": covering, "ending": ending})
    return pieces


def shown_traces(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The train traces that the page has room for, grouped by problem."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    size = 0
    for example in result["examples"][:ROWS]:
        title = brief(example["prompt"], 140)
        words = [clipped(example["prompt"], PROMPT), trace_text(example), title, title, title]
        size += 1_200 + sum(map(_n_bytes, words))
        for f in example["findings"]:
            size += 360 + _n_bytes(f["kind"] + note(f["reason"]) + note(f["correction"] or ""))
        if size > TRACES_BUDGET:
            break
        groups.setdefault((example["prompt"], example["reference"]), []).append(example)
    return [example for group in groups.values() for example in group]


def trace_text(example: Mapping[str, Any]) -> str:
    """A train trace's text, cut to what the page has room for."""
    limit = TRACE_BYTES
    while _n_bytes(example["text"][:limit]) > TRACE_BYTES:
        limit = 3 * limit // 4
    return str(example["text"][:limit])


def note(value: str) -> str:
    """What an observer wrote about a place, cut to a moderate length."""
    return clipped(value, 1_000)


def tall(text: str) -> bool:
    """Whether a text may be longer than the box that it scrolls in."""
    return len(text) > 900 or text.count("\n") > 20


def n_times(example: Mapping[str, Any]) -> int:
    """How many traces an entry stands for; one in files written before entries had a count."""
    return int(example.get("times", 1))


def counted(example: Mapping[str, Any], observer: str) -> int | None:
    """The number of an observer's findings in a trace; None if it did not audit the trace."""
    n = sum(f["observer"] == observer for f in example["findings"])
    return n if n or observer in example.get("audited", [observer]) else None


def agreed(example: Mapping[str, Any], observers: Mapping[str, Any]) -> str:
    """Filter value: whether every, some or none of the observers that audited a trace flag it."""
    counts = [n for n in (counted(example, alias) for alias in observers) if n is not None]
    return "every" if counts and all(counts) else "some" if any(counts) else "none"


def numbered(values: Iterable[str], prefix: str) -> dict[str, str]:
    """Value → a generated name, for attributes that hold several names separated by spaces."""
    return {value: f"{prefix}{i}" for i, value in enumerate(dict.fromkeys(values))}


def named_in(findings: Sequence[Mapping[str, Any]], field: str, names: Mapping[str, str]) -> str:
    """The names of the findings' values in a field, separated by spaces."""
    return " ".join(names[value] for value in dict.fromkeys(f[field] for f in findings) if value in names)


def kinds_of(examples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every kind of finding in the examples, most frequent first."""
    return [kind for kind, _ in Counter(f["kind"] for e in examples for f in e["findings"]).most_common()]


def choices(names: Mapping[str, str]) -> list[tuple[str, str]]:
    """(generated name, label) of each menu entry."""
    return [(name, brief(value, 40)) for value, name in names.items()]


def layers_named(example: Mapping[str, Any]) -> list[int]:
    """Every layer that a finding of the example names."""
    return sorted({layer for f in example["findings"] for layer in f["layers"]})


def moment(value: str) -> str:
    """`2026-11-22 22:48:35+0000` → `22 November 2026, 22:48 UTC`; other forms are returned unchanged."""
    match = MOMENT.fullmatch(value)
    if match is None or not 1 <= int(match["month"]) <= 12:
        return value
    zone = f"{match['sign']}{match['hours']}:{match['minutes']}"
    zone = "UTC" if zone in ("+00:00", "-00:00") else f"UTC{zone.replace('-', '−')}"
    return f"{int(match['day'])} {MONTHS[int(match['month']) - 1]} {match['year']}, {match['time']} {zone}"


def line_style(observer: str, observers: Mapping[str, Any]) -> str:
    """CSS class of the line under an observer's findings, so that observers differ by more than a number."""
    names = list(observers)
    return f"by-{names.index(observer) % 4 if observer in names else 0}"


def yaml_text(value: Any) -> str:
    """A configuration as YAML."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))


def column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float | None]:
    """One quantity of the training log by step; None where a step lacks it."""
    return [row.get(name) for row in rows]
