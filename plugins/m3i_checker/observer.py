"""Quotes the first wrong step that the problem source's verifier finds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from m3i import (
    Audit,
    AuditRequest,
    Component,
    Finding,
    Problem,
    QuoteError,
    StepError,
    Trace,
    Verification,
    line_around,
    make_finding,
)


@dataclass(kw_only=True)
class Checker(Component):
    """Recomputes each written step and quotes the first wrong one; ground truth where the source can verify.

    For a source that checks only answers, the finding quotes the incorrect answer where the completion states it. An
    incorrect completion in which nothing can be quoted (no answer, cut off) is missing, with the reason; it does not
    count as free of failures.
    """

    libraries: ClassVar[tuple[str, ...]] = ()

    async def audit(self, request: AuditRequest) -> Audit:
        """Returns at most one finding per trace: the first wrong step, or the incorrect answer."""
        findings: list[Finding] = []
        audited: list[str] = []
        missing: dict[str, str] = {}
        by_step = 0
        for done, (problem, trace) in enumerate(request.items, start=1):
            verification = request.source.verify(problem, trace.text)
            if verification.correct:
                audited.append(trace.id)
            else:
                try:
                    findings.append(_finding(problem, trace, verification))
                    audited.append(trace.id)
                    by_step += verification.first_error is not None
                except QuoteError as error:
                    missing[trace.id] = str(error)
            request.tick(done, len(request.items))
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(f.kind for f in findings).most_common()) or "none"
        return Audit(
            observer="checker",
            findings=tuple(findings),
            audited=tuple(audited),
            missing=missing,
            notes=(
                f"first failures by kind: {kinds}",
                f"{by_step} of {len(findings)} findings quote a wrong step, {len(findings) - by_step} an incorrect "
                "answer",
            ),
        )


def _finding(problem: Problem, trace: Trace, verification: Verification) -> Finding:
    """The finding for an incorrect trace. Raises QuoteError, whose message is the reason, if nothing can be quoted."""
    if verification.first_error is not None:
        return _step_finding(trace, verification.first_error)
    if not verification.answer:
        cut = "it was cut off" if trace.truncated else "it ended by itself"
        raise QuoteError(f"wrong, but no answer was read out of the completion ({cut}), so nothing can be quoted")
    start = trace.text.rfind(verification.answer)
    if start < 0:
        raise QuoteError(f"wrong, but the answer {verification.answer!r} is not in the completion in these words")
    return make_finding(
        trace,
        verification.answer,
        start=start,
        kind="wrong_answer",
        reason=f"the answer is {problem.answer}, not {verification.answer}",
    )


def _step_finding(trace: Trace, error: StepError) -> Finding:
    start, end, correction = error.start, error.end, error.corrected or None
    if start == end:
        # A step is missing here: the quote is the line before it, up to that line's end, without a correction.
        start = line_around(trace.text, len(trace.text[:end].rstrip()) - 1)[0] if trace.text[:end].strip() else 0
        correction = None
    return make_finding(
        trace,
        trace.text[start:end],
        start=start,
        kind=error.kind,
        reason=error.reason or f"the verifier expects {error.corrected!r}",
        step=_step_number(trace.text, start),
        correction=correction,
    )


def _step_number(text: str, start: int) -> int:
    """Number of the line, from 1; blank lines do not count."""
    return sum(1 for line in text[:start].split("\n")[:-1] if line.strip()) + 1
