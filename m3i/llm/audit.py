"""The audit: its taxonomy of failures, the schema of its reply, and how a reply becomes findings.

The reply is a list of findings without an overall verdict: a trace without findings was judged correct. Each quote is
looked up in the trace; a quote that is not found is dropped and counted, never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from m3i.artifacts import Finding, Problem, Trace
from m3i.audits.quotes import QuoteError, make_finding
from m3i.llm.digest import Step, numbered, step_at, steps_of
from m3i.llm.prompt_fields import Prompt, Slots, Template, shown
from m3i.llm.schema import read_reply, tidy, wire_schema

LAYOUT: Mapping[str, Slots] = {
    "rubric": Slots(words=("taxonomy",)),
    "problem": Slots(data=("problem",)),
    "reference": Slots(data=("reference",)),
    "trace": Slots(data=("trace",)),
    "telemetry": Slots(data=("telemetry",)),
    "reply": Slots(),
    "repair": Slots(words=("error",)),
}
"""Sections of the audit prompt. `reference` and `telemetry` are used if these are shown, `repair` after an invalid
reply."""

MAX_FINDINGS = 50
MAX_TEXT_CHARS = 10_000
"""Maximum characters of any text in a reply; a longer one makes the reply invalid."""
MAX_REASON_CHARS = 600
"""Maximum characters of a reason; a longer one is cut."""


class FailureKind(Enum):
    """The taxonomy: the values of a finding's `kind`, including those of the built-in verifiers."""

    arithmetic = "arithmetic"
    wrong_operand = "wrong_operand"
    wrong_operation = "wrong_operation"
    skipped_step = "skipped_step"
    contradiction = "contradiction"
    unfounded_claim = "unfounded_claim"
    premature_conclusion = "premature_conclusion"
    misread_problem = "misread_problem"
    wrong_answer = "wrong_answer"
    format = "format"
    other = "other"


TAXONOMY: Mapping[FailureKind, tuple[str, str]] = {
    FailureKind.arithmetic: ("the operands are right, the result is miscalculated", "7*6=43"),
    FailureKind.wrong_operand: ("a number or fact is carried over wrongly", "the problem says 48, the step uses 84"),
    FailureKind.wrong_operation: (
        "the right operands, but not the operation that is called for",
        "adds what is to be subtracted",
    ),
    FailureKind.skipped_step: ("a result is used before it was worked out", "uses 7*6 as 42 without having said so"),
    FailureKind.contradiction: ("it contradicts an earlier step that is right", "x is even, later: x=3"),
    FailureKind.unfounded_claim: ("nothing said before supports it", "'clearly all of them are prime'"),
    FailureKind.premature_conclusion: ("it concludes before the work is done", "answers after the first of two cases"),
    FailureKind.misread_problem: ("it answers another question than the one asked", "gives the area, not the length"),
    FailureKind.wrong_answer: ("the steps are right, the answer given is not their result", "42-15=27, answer: 28"),
    FailureKind.format: ("it cannot be read as a step or an answer", "'42 = = 7'"),
    FailureKind.other: ("a failure of none of these kinds", "say in the reason what it is"),
}
"""Kind → meaning and example, as the prompt and docs/audit.md show them."""

Words = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class FindingReply(BaseModel):
    """One finding, as a model writes it."""

    model_config = ConfigDict(extra="forbid")

    step: Annotated[int, Field(ge=0, le=1_000_000, description="Number of the step that fails.")]
    quote: Annotated[Words, Field(description="The failing text, copied from that step character by character.")]
    reason: Annotated[Words, Field(description="Why it is wrong, in one sentence.")]
    kind: Annotated[FailureKind, Field(description="Kind of failure.")]
    correction: Annotated[
        Words | None, Field(description="What should stand in the quote's place; null where that cannot be said.")
    ]
    severity: Annotated[Share, Field(description="0: harmless for what follows. 1: it alone makes the answer wrong.")]
    confidence: Annotated[Share, Field(description="Probability from 0 to 1 that this is a failure.")]


class LayeredFindingReply(FindingReply):
    """A finding on a trace that is shown with telemetry."""

    layers: Annotated[
        list[Annotated[int, Field(ge=0, le=100_000)]],
        Field(max_length=1000, description="Layers that the telemetry makes suspect; empty where none stands out."),
    ]


class AuditReply(BaseModel):
    """The whole reply."""

    model_config = ConfigDict(extra="forbid")

    findings: Annotated[list[FindingReply], Field(max_length=MAX_FINDINGS, description="Empty if every step is right.")]


class LayeredAuditReply(BaseModel):
    """The whole reply on a trace that is shown with telemetry."""

    model_config = ConfigDict(extra="forbid")

    findings: Annotated[
        list[LayeredFindingReply], Field(max_length=MAX_FINDINGS, description="Empty if every step is right.")
    ]


def audit_schema(*, layers: bool) -> dict[str, Any]:
    """Returns the JSON schema of the reply, with or without suspected layers."""
    return wire_schema(LayeredAuditReply if layers else AuditReply)


def taxonomy_lines() -> str:
    """Returns the taxonomy as the prompt lists it."""
    return "\n".join(f"- {kind.value}: {meaning} (e.g. {example})" for kind, (meaning, example) in TAXONOMY.items())


def audit_prompt(
    template: Template, problem: Problem, trace: Trace, *, reference: bool, telemetry: str | None
) -> Prompt:
    """Builds the prompt for one trace.

    Args:
        template: The prompt file.
        problem: The problem that the trace answers.
        trace: The trace, shown with numbered steps.
        reference: Whether the reference answer is shown.
        telemetry: Tables of layers and steps, from `telemetry_digest`; None shows none.
    """
    shared = {"problem": {"problem": problem.prompt}}
    if reference:
        shared["reference"] = {"reference": problem.answer}
    item: dict[str, dict[str, str]] = {"trace": {"trace": numbered(trace.text)}}
    if telemetry is not None:
        item["telemetry"] = {"telemetry": telemetry}
    item["reply"] = {}
    return template.prompt(problem=shared, item=item, words={"taxonomy": taxonomy_lines()})


@dataclass(frozen=True, kw_only=True)
class TraceAudit:
    """The result of one valid reply."""

    findings: tuple[Finding, ...]
    rejected: int = 0
    """Number of findings dropped because their quote is not in the trace."""
    ambiguous: int = 0
    """Number of findings dropped because their quote occurs more than once, and not exactly once in the step named."""
    misplaced: int = 0
    """Number of findings kept although their quote is in another step than the one named."""

    @property
    def usable(self) -> bool:
        """Whether a finding is left, or the reply named none."""
        return bool(self.findings) or not (self.rejected or self.ambiguous)


def read_audit(text: str, trace: Trace, *, layers: bool) -> TraceAudit:
    """Returns the findings of a reply, each located in the trace.

    Raises:
        ReplyError: The reply is not the JSON asked for.
    """
    reply = read_reply(text, LayeredAuditReply) if layers else read_reply(text, AuditReply)
    steps = steps_of(trace.text)
    findings: dict[tuple[int, int, str], Finding] = {}
    rejected = ambiguous = misplaced = 0
    for said in reply.findings:
        starts, length, unnumber = _occurrences(trace.text, said.quote)
        if not starts:
            rejected += 1
            continue
        start = starts[0] if len(starts) == 1 else _in_step(starts, length, said.step, steps)
        if start is None:
            ambiguous += 1
            continue
        try:
            finding = _finding(trace, said, start, length, steps, unnumber=unnumber)
        except QuoteError:  # no token of the trace overlaps the quote
            rejected += 1
            continue
        misplaced += finding.step != said.step
        findings.setdefault((finding.start, finding.end, finding.kind), finding)
    return TraceAudit(findings=tuple(findings.values()), rejected=rejected, ambiguous=ambiguous, misplaced=misplaced)


def _occurrences(text: str, quote: str) -> tuple[list[int], int, bool]:
    """Returns where a quote begins in a trace's text, its length there, and whether step numbers were removed from it.

    The quote is looked up as it is, then in the text as the prompt shows it (which has the same offsets), then without
    the step numbers that the prompt puts before each line.
    """
    if not quote.strip():
        return [], 0, False
    plain = unnumbered(quote)
    for where, what in ((text, quote), (shown(text), quote), (shown(text), plain)):
        starts = [i for i in range(len(where)) if where.startswith(what, i)] if what in where else []
        if starts and what.strip():
            return starts, len(what), what != quote
    return [], 0, False


def unnumbered(quote: str) -> str:
    """Returns a quote without the step numbers (`3| `) at the start of its lines."""
    return re.sub(r"^\d{1,6}\| ?", "", quote, flags=re.MULTILINE)


def _in_step(starts: list[int], length: int, number: int, steps: tuple[Step, ...]) -> int | None:
    """Returns the occurrence that begins in the step named, if there is exactly one."""
    inside = [start for start in starts if step_at(steps, start) == number]
    return inside[0] if len(inside) == 1 else None


def _finding(
    trace: Trace, said: FindingReply, start: int, length: int, steps: tuple[Step, ...], *, unnumber: bool
) -> Finding:
    quote = trace.text[start : start + length]
    correction = said.correction
    if correction is not None and unnumber:
        correction = unnumbered(correction)
    if correction in (quote, said.quote):
        correction = None  # it corrects nothing
    return make_finding(
        trace,
        quote,
        start=start,
        kind=said.kind.value,
        reason=tidy(said.reason, MAX_REASON_CHARS),
        severity=said.severity,
        confidence=said.confidence,
        step=step_at(steps, start),
        correction=correction,
        layers=tuple(sorted(set(said.layers))) if isinstance(said, LayeredFindingReply) else (),
    )
