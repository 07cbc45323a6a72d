"""Findings of observers, and the contrasts (next-token questions) built from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from m3i.artifacts.base import RECORDS, Artifact


@dataclass(frozen=True, kw_only=True)
class CallFacts:
    """Calls, tokens and cost behind an audit or a judge's ballots; all zero for a component that calls no model.

    Answers reused from the ledger count with the tokens and the cost of the original call.
    """

    provider: str = ""
    model: str = ""
    """Name of the model as requested."""
    answered_by: dict[str, int] = field(default_factory=dict)
    """Name of the model as the provider reports it → number of calls."""
    family: str = ""
    """The model's maker; another model of the same family in the experiment is flagged."""
    prompt: str = ""
    """Name and version of the prompt."""
    prompt_sha256: str = ""
    n_calls: int = 0
    """Replies received, repair turns included."""
    n_repairs: int = 0
    """Invalid replies that were requested once more."""
    n_invalid: int = 0
    """Items without a valid reply even after the repair turn."""
    n_refused: int = 0
    n_truncated: int = 0
    """Replies cut off by the length limit."""
    input_tokens: int = 0
    """Prompt tokens neither read from nor written to the provider's cache."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    n_unpriced: int = 0
    """Calls to models without a known price; `cost_usd` does not include them."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One failure that an observer points at."""

    trace_id: str
    quote: str
    """Verbatim text from the trace."""
    start: int
    """Character span of the quote in the trace's text."""
    end: int
    token_start: int
    """Half-open span of the completion tokens that overlap the quote."""
    token_end: int
    kind: str
    reason: str
    severity: float = 1.0
    """0 to 1."""
    confidence: float = 1.0
    """0 to 1, as stated by the observer."""
    step: int | None = None
    """Number of the step, from 1; None if the observer does not count steps."""
    correction: str | None = None
    """What the quoted text should have been, if the observer knows."""
    layers: tuple[int, ...] = ()
    """Layers that the observer itself suspects; empty when it names none."""


@dataclass(frozen=True, kw_only=True)
class Audit(Artifact):
    """One observer's findings on all traces it was given."""

    kind: ClassVar[str] = "audit"
    observer: str
    findings: tuple[Finding, ...] = field(metadata=RECORDS)
    audited: tuple[str, ...]
    """Traces with a valid reply; a trace without a finding was judged free of failures."""
    missing: dict[str, str] = field(default_factory=dict)
    """Trace → why it has no valid reply. Such a trace never counts as free of failures."""
    rejected_quotes: int = 0
    """Findings dropped because their quote is not in the trace."""
    ambiguous_quotes: int = 0
    """Findings dropped because their quote occurs more than once in the trace and no step says which is meant."""
    calls: CallFacts = field(default_factory=CallFacts)
    notes: tuple[str, ...] = ()
    """Facts about this audit for the report, e.g. a calibrated threshold."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Where one audited trace goes wrong, as a next-token question."""

    trace_id: str
    problem_id: str
    observer: str
    context_ids: tuple[int, ...]
    """Prompt and completion up to the first token that differs between the incorrect and the correct text."""
    wrong_id: int
    """The trace's token at that position."""
    right_id: int
    """The correct text's token at that position."""
    position: int
    """Index of the wrong token in the completion."""
    origin: str
    """`correction` (from the corrected step) or `divergence` (first difference from a correct sample)."""


@dataclass(frozen=True, kw_only=True)
class Contrasts(Artifact):
    """The contrasts of one experiment, from all observers."""

    kind: ClassVar[str] = "contrasts"
    contrasts: tuple[Contrast, ...] = field(metadata=RECORDS)
    left_out: dict[str, int] = field(default_factory=dict)
    """`observer: reason` → number of findings without a contrast."""
    agreement: dict[str, Any] = field(default_factory=dict)
    """Pairwise agreement of observers on traces, spans and layers, each against chance (m3i.audits.agreement)."""
