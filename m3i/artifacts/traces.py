"""The target's traces, and what each layer does at their tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from m3i.artifacts.base import ARRAYS, RECORDS, Artifact


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One completion that the target sampled (or the user brought)."""

    id: str
    problem_id: str
    sample: int
    prompt_ids: tuple[int, ...]
    """The whole prompt as the model saw it, template and BOS included."""
    completion_ids: tuple[int, ...]
    """Generated ids, including the end-of-sequence token if the model emitted it."""
    text: str
    """The completion, decoded, without special tokens."""
    offsets: tuple[tuple[int, int], ...]
    """Character span in `text` of each completion token; an empty span for special tokens."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each completion token under the target at temperature 1."""
    correct: bool
    answer: str | None
    truncated: bool
    """Whether the length limit cut the completion off."""


@dataclass(frozen=True, kw_only=True)
class Traces(Artifact):
    """All traces of the train problems."""

    kind: ClassVar[str] = "traces"
    traces: tuple[Trace, ...] = field(metadata=RECORDS)
    generation_time_s: float = 0.0
    """Wall time of generation, for the report; 0 for traces that the user brought."""


@dataclass(frozen=True, kw_only=True)
class Telemetry(Artifact):
    """What each layer does at each completion token, over the traces in `trace_ids`.

    Arrays are ragged over traces: columns `starts[i]:starts[i + 1]` belong to trace i, one
    column per *predicted* completion token (state at the position before it).
    Letters: L layers, S all predicted tokens, E experts.
    """

    kind: ClassVar[str] = "telemetry"
    trace_ids: tuple[str, ...]
    starts: tuple[int, ...]
    moe_layers: tuple[int, ...]
    """The layer of each row of the router arrays."""
    lens_rank_LS: np.ndarray = field(metadata=ARRAYS)
    """Rank (0 = top) of the actual next token when layer l's output goes through norm and unembedding."""
    lens_entropy_LS: np.ndarray = field(metadata=ARRAYS)
    """Entropy in nats of that distribution."""
    update_norm_LS: np.ndarray = field(metadata=ARRAYS)
    """|h_l - h_(l-1)| / |h_(l-1)|, the layer's relative residual update."""
    attention_entropy_LS: np.ndarray = field(metadata=ARRAYS)
    """Entropy in nats of the attention weights, mean over heads."""
    router_entropy_RS: np.ndarray = field(metadata=ARRAYS)
    """Entropy in nats of the router's distribution; R MoE layers (no rows for a dense model)."""
    expert_load_RE: np.ndarray = field(metadata=ARRAYS)
    """Share of the top-k assignments that go to each expert; rows sum to 1."""

    def columns(self, trace_id: str) -> slice:
        """Returns the columns of one trace. Raises KeyError for a trace that was not measured."""
        try:
            i = self.trace_ids.index(trace_id)
        except ValueError:
            raise KeyError(f"telemetry has no trace {trace_id}") from None
        return slice(self.starts[i], self.starts[i + 1])
