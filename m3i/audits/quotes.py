"""Maps quoted failures to token positions; an observer's quote must be in the trace word for word.

Character spans are half-open and count in `Trace.text`; token spans are half-open and count from
the first token of the completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from m3i.artifacts import Audit, Finding, Trace
from m3i.errors import StageError


class QuoteError(ValueError):
    """A quote is not in the trace word for word; count the finding as rejected, never guess."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of a completion, in characters and in tokens."""

    start: int
    end: int
    token_start: int
    token_end: int


def locate(trace: Trace, quote: str, *, start: int | None = None) -> Span:
    """Returns the span of a quote in a trace.

    Args:
        trace: The quoted trace.
        quote: Verbatim text of the trace, at least one character.
        start: Character offset of the quote. Without it the quote must occur exactly once.

    Returns:
        The span, with every token that overlaps the quote.

    Raises:
        QuoteError: The quote is empty, is not at `start`, does not occur exactly once, or no token overlaps it.
    """
    if not quote:
        raise QuoteError(f"trace {trace.id}: the quote is empty; quote the failing text")
    if start is None:
        n = sum(trace.text.startswith(quote, i) for i in range(len(trace.text)))
        if n != 1:
            raise QuoteError(
                f"trace {trace.id}: quote {_short(quote)} occurs {n} times; quote text that occurs once, or give "
                f"its start"
            )
        start = trace.text.index(quote)
    end = start + len(quote)
    if start < 0 or trace.text[start:end] != quote:
        there = trace.text[max(start, 0) : max(end, 0)]
        raise QuoteError(f"trace {trace.id}: characters {start} to {end} read {_short(there)}, not {_short(quote)}")
    tokens = [i for i, (a, b) in enumerate(trace.offsets) if a < end and b > start and a < b]
    if not tokens:
        raise QuoteError(f"trace {trace.id}: no token overlaps characters {start} to {end}")
    return Span(start=start, end=end, token_start=tokens[0], token_end=tokens[-1] + 1)


def make_finding(
    trace: Trace,
    quote: str,
    *,
    kind: str,
    reason: str,
    start: int | None = None,
    severity: float = 1.0,
    confidence: float = 1.0,
    step: int | None = None,
    correction: str | None = None,
    layers: tuple[int, ...] = (),
) -> Finding:
    """Returns a finding whose quote has been checked against the trace; arguments as in Finding and `locate`.

    Raises:
        QuoteError: As in `locate`.
    """
    span = locate(trace, quote, start=start)
    return Finding(
        trace_id=trace.id,
        quote=quote,
        start=span.start,
        end=span.end,
        token_start=span.token_start,
        token_end=span.token_end,
        kind=kind,
        reason=reason,
        severity=severity,
        confidence=confidence,
        step=step,
        correction=correction,
        layers=layers,
    )


def checked_audit(audit: Audit, alias: str, traces: Sequence[Trace], n_layers: int) -> Audit:
    """Returns an observer's audit as the core keeps it, with every claim checked.

    Args:
        audit: What the observer returned.
        alias: The observer's name in this experiment.
        traces: The traces that it was given.
        n_layers: Number of layers in the target.

    Returns:
        The audit under its alias. Findings whose quote is not in the trace word for word are dropped and counted; token
        spans are recomputed; layers that the target does not have are dropped and noted. A trace counts as missing if
        the audit lists it neither as audited nor as missing, or if all its findings were dropped, since no valid
        statement about it is left.

    Raises:
        StageError: The audit names a trace that it was not given, or lists a trace as both audited and missing.
    """
    by_id = {t.id: t for t in traces}
    spoken_of = {*audit.audited, *audit.missing, *(f.trace_id for f in audit.findings)}
    if unknown := sorted(spoken_of - set(by_id)):
        raise StageError(f"observer '{alias}' names {len(unknown)} traces that it was not given, e.g. {unknown[0]}")
    if both := sorted({*audit.audited, *(f.trace_id for f in audit.findings)} & set(audit.missing)):
        raise StageError(f"observer '{alias}' calls {len(both)} traces both audited and missing, e.g. {both[0]}")
    findings: list[Finding] = []
    refused: dict[str, str] = {}
    strange_layers = 0
    for finding in audit.findings:
        try:
            span = locate(by_id[finding.trace_id], finding.quote, start=finding.start)
        except QuoteError as error:
            refused.setdefault(finding.trace_id, f"quote rejected: {error}")
            continue
        layers = tuple(sorted({layer for layer in finding.layers if 0 <= layer < n_layers}))
        strange_layers += len(set(finding.layers)) - len(layers)
        findings.append(
            replace(finding, end=span.end, token_start=span.token_start, token_end=span.token_end, layers=layers)
        )
    n_rejected = len(audit.findings) - len(findings)
    failing = {f.trace_id for f in findings}
    missing = {**audit.missing, **{t: why for t, why in refused.items() if t not in failing}}
    answered = {*audit.audited, *failing} - set(missing)
    audited = tuple(t.id for t in traces if t.id in answered)
    for trace in traces:
        if trace.id not in missing and trace.id not in answered:
            missing[trace.id] = "the observer said nothing about it"
    notes = audit.notes
    if strange_layers:
        notes = (
            *notes,
            f"dropped {strange_layers} named layers that do not exist in a target with {n_layers} layers",
        )
    return replace(
        audit,
        observer=alias,
        findings=tuple(findings),
        audited=audited,
        missing=missing,
        rejected_quotes=audit.rejected_quotes + n_rejected,
        notes=notes,
    )


def line_around(text: str, position: int) -> tuple[int, int]:
    """Returns the character span of the line around `position`, without leading and trailing white space.

    A position on a newline belongs to the line that it ends. The span may be empty (a blank line).
    """
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    end = len(text) if end < 0 else end
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
