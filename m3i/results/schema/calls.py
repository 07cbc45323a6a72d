"""Model calls, and how each stage was obtained: time and money."""

from __future__ import annotations

from m3i.results.schema.values import Count, MadeAt, Money, Seconds, Section, Text


class Calls(Section):
    """The model calls behind an observer or a judge; empty and 0 for a component that calls no model.

    Answers reused from the ledger count with their original tokens and price.
    """

    provider: Text
    """The provider's name."""
    model: Text
    """The model as requested."""
    answered_by: dict[str, Count]
    """Model that answered, according to the provider → calls."""
    family: Text
    """Who made the model."""
    prompt: Text
    """Name and version of the prompt."""
    prompt_sha256: Text
    """Hash of the prompt."""
    n_calls: Count
    """Replies received, repair turns included."""
    n_repairs: Count
    """Repair turns, one per invalid reply."""
    n_invalid: Count
    """Items still without a valid reply after that."""
    n_refused: Count
    """Replies that refuse the request."""
    n_truncated: Count
    """Replies that the length limit ended."""
    input_tokens: Count
    """Prompt tokens neither read from nor written to the provider's cache."""
    cache_read_tokens: Count
    """Prompt tokens read from the provider's cache."""
    cache_write_tokens: Count
    """Prompt tokens written to it."""
    output_tokens: Count
    """Tokens of the replies."""
    cost_usd: Money | None
    """Cost of the calls with a known price; null if calls were made and none has one."""
    n_unpriced: Count
    """Calls without a known price, whose cost is not in `cost_usd`."""


class Stage(Section):
    """How one stage of the run was obtained."""

    stage: Text
    """Name of the stage."""
    label: Text
    """What distinguishes records of the same stage: the component's alias, or `base` and `tuned`; otherwise empty."""
    key: Text
    """The stage's key in the store."""
    hit: bool
    """Whether the store had the artifact."""
    why: Text
    """If it had not, what has changed; empty for a hit."""
    time_s: Seconds
    """Seconds that this run spent on the stage."""
    made_in_s: Seconds
    """Seconds that it took to make the artifact."""
    made_at: MadeAt = ""
    """When the artifact was made, in UTC, as 2026-11-22T20:16:38Z; empty if unknown."""
    peak_memory_bytes: Count
    """Peak resident memory of the process that made it; 0 if it cannot be measured."""


class LedgerRow(Section):
    """Remote calls of this run to one model."""

    provider: Text
    """The provider's name."""
    model: Text
    """The model as requested."""
    made: Count
    """Answers from calls made by this run."""
    reused: Count
    """Answers that were already in the ledger."""
    waited: Count
    """Answers that another task or process obtained while this one waited."""
    input_tokens: Count
    """Uncached prompt tokens of the calls made."""
    cache_read_tokens: Count
    """Prompt tokens read from the provider's cache."""
    cache_write_tokens: Count
    """Prompt tokens written to it."""
    output_tokens: Count
    """Tokens of the replies."""
    cost_usd: Money | None
    """Cost of the calls made; null if calls were made and none has a known price."""
    saved_usd: Money | None
    """What the reused answers cost when they were made; null if unknown."""
    unpriced: Count
    """Calls made without a known price."""
    too_long: Count
    """Requests longer than the model's context."""
    retries: dict[str, Count]
    """Class of error → failed attempts."""
    latency_median_s: Seconds | None
    """Median seconds per call; null without a timed call."""
    latency_max_s: Seconds | None
    """Seconds of the slowest call; null without a timed call."""


class LedgerTally(Section):
    """What the ledger counted in this run."""

    rows: list[LedgerRow]
    """One row per provider and model."""
    uncertain_usd: Money
    """Most that this run can have spent on attempts without an answer that may have been billed."""
    price_source: Text
    """Where the prices come from."""
    recording: Text
    """Name of the recording; empty without one."""
    mode: Text
    """Mode of the ledger: `live`, `replay`, ..."""
    account: Text
    """The account that paid."""
    spent_in_account_usd: Money
    """Total that the account has spent in this ledger, including this run but not uncertain spending."""
    uncertain_in_account_usd: Money
    """Most that the account can have spent on attempts without an answer that may have been billed."""


class Costs(Section):
    """Time and money of the run."""

    time_s: Seconds
    """Seconds that this run spent on all stages."""
    made_in_s: Seconds
    """Seconds that it took to make all artifacts."""
    observers_calls: Count
    """Model calls behind the audits, whenever they were made."""
    observers_unpriced: Count
    """Number of those without a known price."""
    observers_usd: Money | None
    """Cost of the others; null if calls were made and none has a known price."""
    judges_calls: Count
    """Model calls behind the verdicts, whenever they were made."""
    judges_unpriced: Count
    """Number of those without a known price."""
    judges_usd: Money | None
    """Cost of the others; null if calls were made and none has a known price."""
    ledger: LedgerTally | None
    """What this run itself called and paid; null if no component calls a remote model."""
