"""Quotes to token spans, and what is left of an audit that cannot be trusted."""

import pytest

from m3i.artifacts import Audit, Finding, Trace
from m3i.audits.quotes import QuoteError, checked_audit, line_around, locate, make_finding
from m3i.errors import StageError


def trace(text="12+3=15\n15*2=31\n", width=3, trace_id="t"):
    """A trace whose tokens are `width` characters, with an end-of-sequence token."""
    offsets = [(i, min(i + width, len(text))) for i in range(0, len(text), width)]
    return Trace(
        id=trace_id,
        problem_id="p",
        sample=0,
        prompt_ids=(1,),
        completion_ids=(*range(10, 10 + len(offsets)), 2),
        text=text,
        offsets=(*offsets, (len(text), len(text))),
        logprobs=(0.0,) * (len(offsets) + 1),
        correct=False,
        answer=None,
        truncated=False,
    )


def test_a_quote_becomes_every_token_that_overlaps_it():
    span = locate(trace(), "15*2=31")
    assert (span.start, span.end) == (8, 15)
    assert (span.token_start, span.token_end) == (2, 5)  # tokens 6-9, 9-12, 12-15
    assert locate(trace(), "\n", start=15).token_end == 6  # the empty end-of-sequence token overlaps nothing


def test_an_ambiguous_quote_needs_its_start():
    with pytest.raises(QuoteError, match="'15' occurs 2 times"):
        locate(trace(), "15")
    assert locate(trace(), "15", start=8).token_start == 2
    with pytest.raises(QuoteError, match="'aa' occurs 3 times"):
        locate(trace("aaaa"), "aa")  # overlapping occurrences count


@pytest.mark.parametrize(
    ("quote", "start", "message"),
    [
        ("", None, "the quote is empty"),
        ("16", None, "occurs 0 times"),
        ("15", 9, "characters 9 to 11 read '5\\*', not '15'"),
        ("15", -8, "not '15'"),
        ("15", 99, "read '', not '15'"),
    ],
)
def test_a_quote_that_is_not_there_is_rejected(quote, start, message):
    with pytest.raises(QuoteError, match=message):
        locate(trace(), quote, start=start)


def test_lines_lose_the_white_space_around_them():
    text = "ab\n  cd \n\nef"
    assert text[slice(*line_around(text, 0))] == "ab"
    assert text[slice(*line_around(text, 2))] == "ab"  # the newline ends its line
    assert text[slice(*line_around(text, 3))] == "cd"
    assert text[slice(*line_around(text, 9))] == ""
    assert text[slice(*line_around(text, 11))] == "ef"


def loose(trace_id, quote, start, layers=()):
    """A finding as an unreliable observer may write it: its spans are nonsense."""
    return Finding(
        trace_id=trace_id,
        quote=quote,
        start=start,
        end=0,
        token_start=77,
        token_end=0,
        kind="k",
        reason="r",
        layers=layers,
    )


def test_nothing_in_an_audit_is_taken_on_trust():
    traces = [trace(trace_id=name) for name in "abcde"]
    audit = Audit(
        observer="whatever",
        findings=(loose("a", "15*2=31", 8, (3, 3, 9, -1)), loose("a", "no", 0), loose("b", "no", 0)),
        audited=("a", "b", "c"),
        missing={"d": "refused"},
        rejected_quotes=1,
    )
    kept = checked_audit(audit, "alias", traces, n_layers=4)
    assert kept.observer == "alias"
    assert [(f.end, f.token_start, f.token_end, f.layers) for f in kept.findings] == [(15, 2, 5, (3,))]
    assert kept.audited == ("a", "c")
    assert kept.missing["d"] == "refused"
    assert kept.missing["b"].startswith("quote rejected")
    assert kept.missing["e"] == "the observer said nothing about it"
    assert kept.rejected_quotes == 3
    assert kept.notes == ("dropped 2 named layers that do not exist in a target with 4 layers",)


def test_an_audit_that_contradicts_itself_is_an_error():
    with pytest.raises(StageError, match="not given, e\\.g\\. z"):
        checked_audit(Audit(observer="o", findings=(), audited=("z",)), "o", [trace()], 4)
    both = Audit(
        observer="o", findings=(make_finding(trace(), "31", kind="k", reason="r"),), audited=(), missing={"t": "x"}
    )
    with pytest.raises(StageError, match="both audited and missing, e\\.g\\. t"):
        checked_audit(both, "o", [trace()], 4)
