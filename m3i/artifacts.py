"""What one stage hands to the next: frozen, typed, written as JSON, JSONL and safetensors.

Every artifact has an `id` (the store's key of the computation that made it) and the ids of its
parents. Token positions count from the first token of the *completion* unless a name says
otherwise; character spans are half-open and count in the completion's text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

RECORDS = {"storage": "jsonl"}
ARRAYS = {"storage": "safetensors"}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Base of all artifacts; see m3i.codec for how fields are written."""

    kind: ClassVar[str]
    id: str = field(default="", metadata={"storage": "none"})
    parents: tuple[str, ...] = field(default=(), metadata={"storage": "none"})
    folder: Path = field(default=Path(), metadata={"storage": "none"})
    """Where the artifact lies in the store; files named in its fields are relative to it."""


# -- problems ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One checkable problem."""

    id: str
    """Hash of the canonical form: two problems that differ in names, order or white space alone share it."""
    prompt: str
    """Text as the source states it, before any chat template."""
    answer: str
    """Reference answer."""
    steps: tuple[str, ...] = ()
    """Reference steps, verbatim, where the source knows them."""
    solution: str = ""
    """A completely right completion in the target's own format, where the source can write one."""
    data: dict[str, Any] = field(default_factory=dict)
    """What the source's own verifier needs; JSON values only."""


@dataclass(frozen=True, kw_only=True)
class StepError:
    """The first wrong step of a completion."""

    start: int
    """Character offset in the completion."""
    end: int
    kind: str
    """arithmetic, wrong_operand, skipped_step, wrong_answer, format, ..."""
    corrected: str
    """Right text for [start, end)."""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A verifier's word on one completion."""

    correct: bool
    answer: str | None
    """The answer read out of the completion, None where none was found."""
    first_error: StepError | None = None
    """None for sources without steps, and for right completions."""
    corrected: str | None = None
    """The completion with the first wrong step and all that follows made right, where the source can."""


@dataclass(frozen=True, kw_only=True)
class ProblemSet(Artifact):
    """Train and held-out problems, disjoint in canonical form."""

    kind: ClassVar[str] = "problems"
    train: tuple[Problem, ...] = field(metadata=RECORDS)
    held_out: tuple[Problem, ...] = field(metadata=RECORDS)


# -- traces -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One completion that the target sampled (or the user brought)."""

    id: str
    problem_id: str
    sample: int
    prompt_ids: tuple[int, ...]
    """The whole prompt as the model saw it, template and BOS included."""
    completion_ids: tuple[int, ...]
    """Generated ids, the end-of-sequence token included when the model ended by itself."""
    text: str
    """The completion, decoded, without special tokens."""
    offsets: tuple[tuple[int, int], ...]
    """Character span in `text` of each completion token; an empty span for special tokens."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each completion token under the target at temperature 1."""
    correct: bool
    answer: str | None
    truncated: bool
    """The length limit ended the completion, not the model."""


@dataclass(frozen=True, kw_only=True)
class Traces(Artifact):
    """All traces of the train problems."""

    kind: ClassVar[str] = "traces"
    traces: tuple[Trace, ...] = field(metadata=RECORDS)
    generation_time_s: float = 0.0
    """Wall time of generation, for the report; 0 for traces that the user brought."""


# -- telemetry --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Telemetry(Artifact):
    """What each layer does at each completion token, over the traces in `trace_ids`.

    Arrays are ragged over traces: columns `starts[i]:starts[i + 1]` belong to trace i, one
    column a *predicted* completion token (state at the position before it).
    Letters: L layers, S all predicted tokens, E experts.
    """

    kind: ClassVar[str] = "telemetry"
    trace_ids: tuple[str, ...]
    starts: tuple[int, ...]
    moe_layers: tuple[int, ...]
    """Rows of the router arrays."""
    lens_rank_LS: np.ndarray = field(metadata=ARRAYS)
    """Rank (0 = first) of the token that came next when layer l's output goes through norm and unembedding."""
    lens_entropy_LS: np.ndarray = field(metadata=ARRAYS)
    """Entropy in nats of that distribution."""
    update_norm_LS: np.ndarray = field(metadata=ARRAYS)
    """|h_l - h_(l-1)| / |h_(l-1)|, the layer's relative residual update."""
    attention_entropy_LS: np.ndarray = field(metadata=ARRAYS)
    """Entropy in nats of the attention weights, mean over heads."""
    router_entropy_RS: np.ndarray = field(metadata=ARRAYS)
    """Entropy in nats of the router's distribution; R MoE layers (no rows for a dense model)."""
    expert_load_RE: np.ndarray = field(metadata=ARRAYS)
    """Share of top-k assignments that each expert got; rows sum to 1."""

    def columns(self, trace_id: str) -> slice:
        """Columns of one trace. Raises KeyError for a trace that was not measured."""
        try:
            i = self.trace_ids.index(trace_id)
        except ValueError:
            raise KeyError(f"telemetry has no trace {trace_id}") from None
        return slice(self.starts[i], self.starts[i + 1])


# -- findings ---------------------------------------------------------------------------------


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
    n_calls: int = 0
    cost_usd: float = 0.0
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
    """Pairwise agreement of observers on traces, spans and layers, each against chance (m3i.agreement)."""


# -- layers -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """Scores of one observer, or of all together (`joint`)."""

    observer: str
    scores: tuple[float, ...]
    low: tuple[float, ...]
    """Bootstrap interval over traces, 95 %."""
    high: tuple[float, ...]
    n_traces: int


@dataclass(frozen=True, kw_only=True)
class LayerScores(Artifact):
    """One attributor's score for every layer, per observer and joint."""

    kind: ClassVar[str] = "scores"
    attributor: str
    rows: tuple[ScoreRow, ...]
    left_out: dict[str, int] = field(default_factory=dict)

    def joint(self) -> ScoreRow:
        """Scores over all observers."""
        return next(row for row in self.rows if row.observer == "joint")


@dataclass(frozen=True, kw_only=True)
class LayerSelection(Artifact):
    """Layers to train. Two selections of the same layers are the same experiment from here on."""

    kind: ClassVar[str] = "selection"
    layers: tuple[int, ...]
    candidates: tuple[int, ...]
    reason: str
    zero_update: bool = False
    """Sham arm: the adapter is all zeros, the graft must change nothing."""


# -- pairs ------------------------------------------------------------------------------------


class PairOrigin(str, Enum):
    """Where the chosen side came from."""

    SAMPLED = "sampled"
    CORRECTED = "corrected"


@dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """Chosen and rejected completion of one prompt."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_text: str
    rejected_text: str
    rejected_trace_id: str
    origin: PairOrigin


@dataclass(frozen=True, kw_only=True)
class PreferencePairs(Artifact):
    """Pairs for DPO, counted."""

    kind: ClassVar[str] = "pairs"
    pairs: tuple[PreferencePair, ...] = field(metadata=RECORDS)
    counts: dict[str, int] = field(default_factory=dict)
    """Problems with both outcomes, all right, all wrong; pairs per origin; pairs left out, by reason."""
    lengths: dict[str, float] = field(default_factory=dict)
    """Mean and maximum lengths in tokens of prompt, chosen and rejected."""


@dataclass(frozen=True, kw_only=True)
class ReferenceLogprobs(Artifact):
    """Summed log-probabilities of each pair's completions under the untouched model, in nats."""

    kind: ClassVar[str] = "reference"
    chosen_P: np.ndarray = field(metadata=ARRAYS)
    rejected_P: np.ndarray = field(metadata=ARRAYS)


# -- models -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TargetInfo:
    """A target's facts, read from its configuration."""

    name: str
    revision: str
    """Commit or content hash: two targets with equal revision are the same weights."""
    architecture: str
    """Class name in transformers, e.g. DeepseekV2ForCausalLM."""
    family: str
    """Who made it, e.g. `deepseek`; a judge or observer of the same family is flagged."""
    n_layers: int
    n_parameters: int
    """On disk, tied embeddings once."""
    n_active: int
    """Used for one token (a MoE model routes)."""
    n_experts: int = 0
    n_experts_active: int = 0
    dense_layers: tuple[int, ...] = ()
    """Layers without a router in a model that has routers elsewhere."""
    device: str = "cpu"
    """Kind of device the weights will be loaded to: cpu, cuda, ... (resolved, never `auto`)."""
    dtype: str = "float32"
    """Data type of the weights in memory."""
    config: dict[str, Any] = field(default_factory=dict)
    """The Hugging Face configuration."""
    files: dict[str, str] = field(default_factory=dict)
    """Local files worth knowing: `model` (folder), `gguf` (the target's own GGUF, if it has one)."""

    def default_candidates(self) -> tuple[int, ...]:
        """Layers selected from unless `selector.candidates=all`: those with a router in a MoE model, else all."""
        return tuple(i for i in range(self.n_layers) if i not in self.dense_layers)


@dataclass(frozen=True, kw_only=True)
class TrainedTensor:
    """One pair of LoRA factors."""

    name: str
    """Module or parameter in the base model, e.g. `model.layers.6.self_attn.o_proj.weight`."""
    layer: int
    shape: tuple[int, int]
    """(d_out, d_in) of the base weight."""
    n_trainable: int
    update_norm: float
    """Frobenius norm of (alpha / r) B A after training."""
    first_moved_a: int | None
    """Optimizer step after which A differs from its start; None if it never moved."""
    first_moved_b: int | None


@dataclass(frozen=True, kw_only=True)
class TrainingCertificate:
    """What moved and what did not."""

    tensors: tuple[TrainedTensor, ...]
    n_trainable: int
    n_frozen_tensors: int
    frozen_identical: bool
    """Every tensor outside the adapter is bit-identical before and after."""
    frozen_without_gradient: bool
    vacuous: bool = False
    """A sham arm: zero update by construction, so nothing is proved."""
    notes: tuple[str, ...] = ()
    """What the trainer left out, in words, e.g. a dense layer without a router."""


@dataclass(frozen=True, kw_only=True)
class Adapter(Artifact):
    """A PEFT adapter: `folder` loads with `PeftModel.from_pretrained`."""

    kind: ClassVar[str] = "adapter"
    certificate: TrainingCertificate
    log: tuple[dict[str, float], ...] = field(metadata=RECORDS)
    """One row an optimizer step: step, loss, reward_margin, reward_accuracy, grad_norm, learning_rate."""
    train_time_s: float = 0.0
    n_tokens: int = 0
    """Tokens (prompt and completion, both sides) seen in training."""


@dataclass(frozen=True, kw_only=True)
class BaseModel(Artifact):
    """The base model as a GGUF file."""

    kind: ClassVar[str] = "base"
    path: str
    """File name relative to `folder`, or an absolute path for a target's own GGUF."""
    sha256: str
    tensor_types: dict[str, int]
    """GGML type → number of tensors."""
    parity: dict[str, float]
    """Log-probability differences llama.cpp − transformers on the same tokens: mean_abs, max_abs, n_tokens, ..."""

    def file(self) -> Path:
        """Absolute path of the GGUF."""
        return self.folder / self.path


@dataclass(frozen=True, kw_only=True)
class TensorLiveness:
    """The difference that one trained tensor makes alone, in PEFT and in llama.cpp."""

    name: str
    n_trainable: int
    ggml_type: str
    """Type(s) of the grafted tensor(s) in the file."""
    peft_norm: float
    """Root mean square over tokens of the log-probability difference (tuned − base) in PEFT, nats."""
    llama_norm: float
    relative_error: float
    """|d_llama − d_peft| / |d_peft| over the probe tokens."""
    live: bool
    note: str = ""
    factor: float = 1.0
    """The update was multiplied by this for the measurement, so that its effect stands out of the parity noise."""
    erased_share: float = 0.0
    """Share of the update's elements that are under half a step of the stored type, so change nothing in the file."""
    storage_error: float = 0.0
    """|stored update − update| / |update|, Frobenius norms: what the stored type costs at factor 1."""


@dataclass(frozen=True, kw_only=True)
class FileEffect:
    """What a whole update makes of the log-probabilities in the file that answers."""

    peft_norm: float
    """Root mean square over probe tokens of tuned − base in PEFT, nats."""
    llama_norm: float
    """The same in llama.cpp."""
    relative_error: float
    """|d_llama − d_peft| / |d_peft|."""


@dataclass(frozen=True, kw_only=True)
class ExportCertificate:
    """Evidence that the update evaluated is the update trained."""

    tensors: tuple[TensorLiveness, ...]
    together: TensorLiveness
    n_probe_tokens: int
    base_parity_rms: float
    """Root mean square of llama.cpp − transformers for the base, nats: the floor below which nothing can be told."""
    routing_flips: int
    """Probe tokens whose top-k experts differ between the two runtimes; left out of the errors and counted here."""
    live_share: float
    """Share of the adapter's parameters that is live in llama.cpp."""
    identical_tensors: int
    """Tensors of the tuned file that equal the base file byte for byte."""
    n_tensors: int
    vacuous: bool = False
    passed: bool = True
    note: str = ""
    in_file: FileEffect | None = None
    """The whole in the very file that answers, where `tensors` and `together` were measured on an F32 twin of it: its
    kernels round activations, so a small update can come out as another. None where the file itself was measured."""


@dataclass(frozen=True, kw_only=True)
class Export(Artifact):
    """The tuned model for llama.cpp: a whole GGUF, or the base with a GGUF adapter."""

    kind: ClassVar[str] = "export"
    model_path: str | None
    """Tuned GGUF relative to `folder`; None when the base file is used with `adapter_path`."""
    adapter_path: str | None
    certificate: ExportCertificate


# -- answers and verdicts ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One held-out completion under llama.cpp."""

    problem_id: str
    seed: int
    completion_ids: tuple[int, ...]
    text: str
    correct: bool
    answer: str | None
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Answers(Artifact):
    """All held-out answers of one model."""

    kind: ClassVar[str] = "answers"
    answers: tuple[Answer, ...] = field(metadata=RECORDS)
    time_s: float = 0.0
    n_threads: int = 1


class Outcome(str, Enum):
    """Result of one comparison."""

    BASE = "base"
    TUNED = "tuned"
    TIE = "tie"
    SPLIT = "split"
    """The two orders disagree."""
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One judge's word on one held-out problem and generation seed, from both orders."""

    problem_id: str
    seed: int
    outcome: Outcome
    first: str
    """Choice with the base answer shown first: base, tuned, tie, missing; `equal` where both are the same text."""
    second: str
    """Choice with the tuned answer shown first."""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdicts(Artifact):
    """All verdicts of one judge."""

    kind: ClassVar[str] = "verdicts"
    judge: str
    verdicts: tuple[Verdict, ...] = field(metadata=RECORDS)
    n_equal: int = 0
    """Comparisons settled without a call because the answers are identical."""
    cost_usd: float = 0.0
