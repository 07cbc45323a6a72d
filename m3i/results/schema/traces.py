"""What was measured and found in the train traces."""

from __future__ import annotations

from pydantic import Field

from m3i.results.schema.values import (
    Count,
    Layers,
    Number,
    Positive,
    Seconds,
    Section,
    Size,
    Text,
)


class TracesSection(Section):
    """The sampled train traces."""

    n: Count
    """Number of traces."""
    n_problems: Count
    """Problems that they answer."""
    audited: Count = 0
    """Traces that at least one observer audited; absent in results of early versions."""
    right: Count
    """Correct traces, by the problem source's verifier."""
    truncated: Count
    """Traces that the length limit ended."""
    mean_tokens: Size | None
    """Mean length in tokens; null without a trace."""
    generation_time_s: Seconds
    """Seconds of sampling."""


class TelemetryMaps(Section):
    """Layer × position means over traces; one list per layer, one entry per bin, null in bins without tokens."""

    lens_bits: list[list[Number | None]]
    """log2(1 + rank) of the token that came next when the layer's output is read through the unembedding."""
    lens_entropy: list[list[Number | None]]
    """Entropy of that reading, in nats."""


class TokenGroups(Section):
    """Tokens by location."""

    finding: Count
    """Tokens inside a finding."""
    right: Count
    """Tokens of correct traces."""


class Profile(Section):
    """Layer means of one measure; null where there is no token."""

    finding: list[Number | None]
    """Over tokens inside a finding."""
    right: list[Number | None]
    """Over tokens of correct traces."""


class Profiles(Section):
    """Layer means inside findings and in correct traces."""

    lens_bits: Profile
    """log2(1 + rank) of the next token, read from the layer's output."""
    lens_entropy: Profile
    """Entropy of that reading, in nats."""
    update_norm: Profile
    """Norm of the layer's update to the residual stream, relative to the stream's norm."""
    attention_entropy: Profile
    """Entropy of the attention weights, in nats."""
    router_entropy: Profile
    """Entropy of the router, in nats; one entry per layer with a router."""


class TelemetrySection(Section):
    """Telemetry, condensed to what the report draws."""

    n_traces: Count
    """Traces measured."""
    n_tokens: Count
    """Tokens in those traces."""
    moe_layers: Layers
    """Layers with a router."""
    bins: Positive
    """Equal parts of a completion's length, the columns of the maps."""
    maps: TelemetryMaps
    """Means by layer and position."""
    tokens: TokenGroups
    """Tokens behind the profiles."""
    profiles: Profiles
    """Means by layer."""
    expert_load: list[list[Number | None]]
    """Share of the router's assignments per expert; one list per layer with a router."""


class ContrastsSection(Section):
    """Findings turned into next-token questions."""

    n: Count
    """Contrasts."""
    n_traces: Count
    """Traces that they come from."""
    origins: dict[str, Count]
    """`correction` or `divergence` → contrasts."""
    left_out: dict[str, Count]
    """`observer: reason` → findings without a contrast."""


class FindingExample(Section):
    """One finding in a train trace."""

    observer: Text
    """Alias of the observer."""
    start: Count
    """First character of the quote."""
    end: Count
    """Position after its last character."""
    kind: Text
    """Kind of failure."""
    reason: Text
    """The observer's words."""
    correction: Text | None
    """What the text should be; null if the observer does not say."""
    severity: Number | None
    """Severity, 0 to 1."""
    confidence: Number | None
    """The observer's confidence, 0 to 1."""
    layers: Layers
    """Layers that the observer suspects."""


class TraceExample(Section):
    """One audited train trace in full, with its findings."""

    trace_id: Text
    """Id of the trace."""
    problem_id: Text = ""
    """Hash of its problem; absent in results of early versions."""
    times: Count = 1
    """Traces of this problem with the same text and the same findings."""
    audited: list[Text] = Field(default_factory=list)
    """Aliases of the observers that audited it; absent in results of early versions."""
    prompt: Text
    """The problem as it was asked."""
    reference: Text
    """The reference answer."""
    text: Text
    """The trace."""
    correct: bool
    """Whether the problem source's verifier accepts it."""
    answer: Text | None
    """What the verifier read as the answer; null if it found none."""
    findings: list[FindingExample]
    """The findings of all observers."""
