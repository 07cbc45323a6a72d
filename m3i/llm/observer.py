"""The base class of observers that ask a language model."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from m3i.artifacts import Audit, Finding, Problem, Telemetry, Trace
from m3i.component import require
from m3i.interfaces import AuditRequest
from m3i.ledger.request import ModelRequest
from m3i.llm import audit
from m3i.llm.audit import TraceAudit, audit_prompt, audit_schema, read_audit
from m3i.llm.digest import telemetry_digest
from m3i.llm.panel import Ask, Asked, ReplyError, together
from m3i.llm.prompt_fields import Slots, Template
from m3i.llm.text_model import TextModel

ALL_DROPPED = "none of the quotes in the reply is in the trace at one place"


@dataclass(kw_only=True)
class LLMObserver(TextModel, ABC):
    """Shows a model one trace at a time and collects its findings; see docs/audit.md.

    A subclass defines how text is obtained (`answers`); remote ones mix in RemoteModel.
    """

    group: ClassVar[str] = "observer"
    builtin_prompt: ClassVar[str] = "audit.md"
    layout: ClassVar[Mapping[str, Slots]] = audit.LAYOUT

    show_reference: bool = True
    """Whether the model is shown the problem's reference answer."""
    show_telemetry: bool = False
    """Whether the model is also shown what each layer did in each step, if measured, and may name suspected layers."""
    replicate: int = 0
    """Index of this observer's answer among several independent answers to the same question."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        require(self.replicate >= 0, "observer.replicate", self.replicate, "0 or more")

    async def audit(self, request: AuditRequest) -> Audit:
        """Returns the findings of all traces; each trace is asked about separately."""
        asks, with_layers = self.asks(request), audit_schema(layers=True)
        asked = await self.answers(asks, ledger=request.ledger, purpose=f"observe {self.model}", tick=request.tick)
        return self._audit(request, asked, n_digests=sum(ask.request.schema == with_layers for ask in asks))

    def request_for(self, problem: Problem, trace: Trace, telemetry: Telemetry | None = None) -> ModelRequest:
        """Returns what the model is asked about one trace; `telemetry` is used only with `show_telemetry`."""
        return self._ask(self.template(), problem, trace, telemetry).request

    def asks(self, request: AuditRequest) -> list[Ask[TraceAudit]]:
        """Returns one item per trace; traces of one problem are adjacent, as their prompts share a prefix."""
        template = self.template()
        items = together(request.items, lambda item: item[0].id)
        return [self._ask(template, problem, trace, request.telemetry) for problem, trace in items]

    def _ask(self, template: Template, problem: Problem, trace: Trace, telemetry: Telemetry | None) -> Ask[TraceAudit]:
        digest = telemetry_digest(telemetry, trace) if self.show_telemetry and telemetry is not None else None
        layers = digest is not None
        prompt = audit_prompt(template, problem, trace, reference=self.show_reference, telemetry=digest)
        return Ask(
            id=trace.id,
            request=self.make_request(prompt, audit_schema(layers=layers), self.replicate),
            read=partial(read_audit, trace=trace, layers=layers),
            repair=partial(say_repair, template),
            prompt=prompt,
        )

    def _audit(self, request: AuditRequest, asked: Asked[TraceAudit], n_digests: int) -> Audit:
        findings: list[Finding] = []
        audited: list[str] = []
        missing: dict[str, str] = {}
        for _, trace in request.items:
            answer = asked.values.get(trace.id)
            if answer is None:
                missing[trace.id] = asked.missing.get(trace.id, "the model was not asked")
            elif not answer.usable:
                missing[trace.id] = ALL_DROPPED
            else:
                audited.append(trace.id)
                findings += answer.findings
        return Audit(
            observer=self.model,
            findings=tuple(findings),
            audited=tuple(audited),
            missing=missing,
            rejected_quotes=sum(a.rejected for a in asked.values.values()),
            ambiguous_quotes=sum(a.ambiguous for a in asked.values.values()),
            calls=asked.facts,
            notes=self._notes(asked, n_digests, len(request.items)),
        )

    def _notes(self, asked: Asked[TraceAudit], n_digests: int, n_items: int) -> tuple[str, ...]:
        notes = [f"reference answer {'shown' if self.show_reference else 'withheld'}"]
        if self.show_telemetry:
            others = "" if n_digests == n_items else ", the others were not measured"
            notes.append(f"telemetry shown for {n_digests} of {n_items} traces{others}")
        if misplaced := sum(a.misplaced for a in asked.values.values()):
            notes.append(f"{misplaced} findings name a different step from the one with their quote; the quote decides")
        return tuple(notes)


def say_repair(template: Template, error: ReplyError) -> str:
    """Returns the user's turn after an invalid reply."""
    return template.say("repair", {"error": str(error)})
