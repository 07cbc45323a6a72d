"""What observers find, and the next-token questions made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from m3i.artifacts.base import RECORDS, Artifact


@dataclass(frozen=True, kw_only=True)
class CallFacts:
    """What the model calls behind an audit or a panel of ballots came to; all zero for a component that asks no model.

    Answers reused from the ledger count with the tokens and the price that they had when they were made.
    """

    provider: str = ""
    model: str = ""
    """As asked for."""
    answered_by: dict[str, int] = field(default_factory=dict)
    """Model by the provider's word → calls."""
    family: str = ""
    """Who made the model; one of the same family elsewhere in the experiment is flagged."""
    prompt: str = ""
    """Name and version of the prompt."""
    prompt_sha256: str = ""
    n_calls: int = 0
    """Replies received, repair turns included."""
    n_repairs: int = 0
    """Replies that were not valid and were asked for once more."""
    n_invalid: int = 0
    """Items still without a valid reply after that."""
    n_refused: int = 0
    n_truncated: int = 0
    """Replies that the length limit ended."""
    input_tokens: int = 0
    """Prompt tokens neither read from nor written to the provider's cache."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    n_unpriced: int = 0
    """Calls of a model without a known price: their cost is not in `cost_usd`."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One failure that an observer points at."""

    trace_id: str
    quote: str
    """Verbatim text of the trace."""
    start: int
    """Character span of the quote in the trace's text."""
    end: int
    token_start: int
    """Completion tokens that overlap the quote."""
    token_end: int
    kind: str
    reason: str
    severity: float = 1.0
    """0 to 1."""
    confidence: float = 1.0
    """0 to 1, the observer's own."""
    step: int | None = None
    """Number of the step, from 1, where the observer counts steps."""
    correction: str | None = None
    """What the quoted text should have been, where the observer knows."""
    layers: tuple[int, ...] = ()
    """Layers that the observer itself suspects; empty when it names none."""


@dataclass(frozen=True, kw_only=True)
class Audit(Artifact):
    """One observer's word on all traces it was given."""

    kind: ClassVar[str] = "audit"
    observer: str
    findings: tuple[Finding, ...] = field(metadata=RECORDS)
    audited: tuple[str, ...]
    """Traces with a valid answer; one without a finding was judged free of failures."""
    missing: dict[str, str] = field(default_factory=dict)
    """Trace → why no valid answer came. Never counted as free of failures."""
    rejected_quotes: int = 0
    """Findings dropped because their quote is not in the trace."""
    ambiguous_quotes: int = 0
    """Findings dropped because their quote stands in the trace more than once and no step says which is meant."""
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
    """Prompt and completion up to the first token that differs between wrong and right text."""
    wrong_id: int
    """The token the trace has there."""
    right_id: int
    """The token the right text has there."""
    position: int
    """Index of the wrong token in the completion."""
    origin: str
    """`correction` (the step made right) or `divergence` (first difference from a right sample)."""


@dataclass(frozen=True, kw_only=True)
class Contrasts(Artifact):
    """The contrasts of one experiment, all observers."""

    kind: ClassVar[str] = "contrasts"
    contrasts: tuple[Contrast, ...] = field(metadata=RECORDS)
    left_out: dict[str, int] = field(default_factory=dict)
    """`observer: reason` → findings without a contrast."""
    agreement: dict[str, Any] = field(default_factory=dict)
    """Pairwise agreement of observers on traces, spans and layers, each against chance (m3i.audits.agreement)."""
