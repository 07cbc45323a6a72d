"""The model's side of a run: target, layers, training, certificates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from m3i.results.schema.values import Count, Layers, Number, Pair, Positive, Seconds, Section, Share, Size, Text


class Target(Section):
    """The model that was trained."""

    name: Text
    """Name of the target."""
    revision: Text
    """Commit or content hash: two targets with equal revisions have the same weights."""
    architecture: Text
    """Class name in transformers."""
    family: Text
    """Who made it."""
    n_layers: Positive
    """Number of layers."""
    n_parameters: Count
    """Parameters on disk, tied embeddings once."""
    n_active: Count
    """Parameters used per token."""
    n_experts: Count
    """Routed experts per layer; 0 for a dense model."""
    n_experts_active: Count
    """Routed experts per token; 0 for a dense model."""
    dense_layers: Layers
    """Layers without a router in a model that has routers elsewhere."""
    device: Text
    """Kind of device that it ran on: `cpu`, `cuda`, ..."""
    dtype: Text
    """Data type of the weights in memory."""


class Parameters(Section):
    """Numbers of parameters."""

    on_disk: Count
    """Parameters of the target, tied embeddings once."""
    active: Count
    """Parameters used per token."""
    trained: Count
    """Parameters of the adapter."""
    steered: Count
    """Parameters of the weights that the adapter acts on."""
    trained_by_module: dict[str, Count]
    """Module → parameters trained in it."""


class LayerOverlap(Section):
    """Layers that one attributor selects from the findings of each of two observers."""

    observers: Pair
    """Aliases of the two observers."""
    first: Layers
    """The top layers by the first observer's scores."""
    second: Layers
    """The top layers by the second observer's scores."""
    shared: Count
    """Layers in both."""
    expected: Size
    """Layers that random picks would share on average."""
    p: Share
    """Probability that random picks share as many or more (hypergeometric)."""
    p_holm: Share
    """`p`, Holm-corrected over all rows of all attributors."""


class ScoreRow(Section):
    """One attributor's layer scores from the findings of one observer. Each list has one entry per layer."""

    observer: Text
    """Alias of the observer; `joint` for all observers together."""
    scores: list[Number | None]
    """Score of each layer; null if not finite."""
    low: list[Number | None]
    """Lower end of the 95 % bootstrap interval over traces."""
    high: list[Number | None]
    """Upper end of the interval."""
    n_traces: Count
    """Traces behind the scores."""


class Attributor(Section):
    """Layer scores of one attributor."""

    attributor: Text
    """Its alias."""
    rows: list[ScoreRow]
    """One row per observer, and one for all together."""
    order: Layers
    """Candidate layers from the highest to the lowest joint score."""
    left_out: dict[str, Count]
    """Reason → findings or traces that yielded no score."""
    agreement: list[LayerOverlap]
    """Whether the findings of every two observers lead to the same layers."""


class LayersSection(Section):
    """The target's layers, their scores, and which were trained."""

    n: Annotated[int, Field(ge=1, le=10**5)]
    """Layers of the target."""
    dense: Layers
    """Layers without a router in a model that has routers elsewhere."""
    moe: bool
    """Whether the target routes tokens to experts."""
    candidates: Layers
    """Layers that could have been selected."""
    selected: Layers
    """Layers that this arm trained."""
    reason: Text
    """Why these layers, in words."""
    zero_update: bool
    """Whether the update is zero by construction, as in the sham arm."""
    attributors: dict[str, Attributor]
    """Alias → scores of an attributor."""


class PairExample(Section):
    """One preference pair in full."""

    prompt: Text
    """The problem."""
    chosen: Text
    """The preferred completion."""
    rejected: Text
    """The rejected completion."""
    origin: Text
    """Where the preferred completion comes from: `sampled` or `corrected`."""


class Training(Section):
    """Preference pairs and the training curve."""

    n_pairs: Count
    """Preference pairs."""
    n_problems: Count
    """Problems that they come from."""
    origins: dict[str, Count]
    """Origin of the preferred completion → pairs."""
    counts: dict[str, Count]
    """What became of problems and pairs, by reason; `pairs: swapped` counts the swapped pairs of the shuffled arm."""
    lengths: dict[str, Number | None]
    """Means and maxima of lengths, in tokens."""
    examples: list[PairExample]
    """The first pairs."""
    log: list[dict[str, Number | None]]
    """One row per optimizer step: `step`, `loss`, `reward_margin`, `reward_accuracy`, ...; null where a value is not
    finite."""
    time_s: Seconds
    """Seconds of training."""
    n_tokens: Count
    """Tokens seen in training, prompts and both completions included."""


class TrainedTensor(Section):
    """One pair of LoRA factors."""

    name: Text
    """Name of the base model's parameter that they update."""
    layer: Count
    """The layer."""
    shape: Annotated[list[Count], Field(min_length=2, max_length=2)]
    """(d_out, d_in) of the base weight."""
    n_trainable: Count
    """Parameters of both factors."""
    update_norm: Number | None
    """Frobenius norm of the update after training; null where it is not finite."""
    first_moved_a: Count | None
    """Optimizer step after which factor A differs from its initial value; null if it never moved."""
    first_moved_b: Count | None
    """The same for factor B."""


class TrainingCertificate(Section):
    """What training moved, and what it left unchanged."""

    tensors: list[TrainedTensor]
    """The trained tensors."""
    n_trainable: Count
    """Parameters trained."""
    n_frozen_tensors: Count
    """Tensors outside the adapter."""
    frozen_identical: bool
    """Whether all of those are bit-identical before and after training."""
    frozen_without_gradient: bool
    """Whether none of those had a gradient."""
    vacuous: bool
    """Whether nothing is proved, since the update is zero by construction."""
    notes: list[Text]
    """What the trainer left out, in words."""


class TensorLiveness(Section):
    """The difference that one trained tensor alone makes, in PEFT and in llama.cpp."""

    name: Text
    """Name of the base model's parameter."""
    n_trainable: Count
    """Parameters of the update."""
    ggml_type: Text
    """Types of its tensors in the file."""
    peft_norm: Number | None
    """Root mean square of the log-probability difference (tuned − base) in PEFT, in nats, over probe tokens."""
    llama_norm: Number | None
    """The same in llama.cpp."""
    relative_error: Number | None
    """|d_llama − d_peft| / |d_peft| over probe tokens; null where it is not finite."""
    live: bool
    """Whether the update arrived in llama.cpp."""
    note: Text
    """Remark; may be empty."""
    factor: Number | None
    """Factor by which the update was multiplied for the measurement."""
    erased_share: Number | None
    """Share of the update's elements below half a step of the stored type, which change nothing in the file."""
    storage_error: Number | None
    """|stored update − update| / |update|, Frobenius norms."""


class FileEffect(Section):
    """The effect of the whole update in the file used for the answers."""

    peft_norm: Number | None
    """Root mean square of the log-probability difference (tuned − base) in PEFT, in nats, over probe tokens."""
    llama_norm: Number | None
    """The same in llama.cpp."""
    relative_error: Number | None
    """|d_llama − d_peft| / |d_peft|; null where it is not finite."""


class ExportCertificate(Section):
    """Evidence that the update evaluated in llama.cpp is the trained one."""

    tensors: list[TensorLiveness]
    """Each trained tensor alone."""
    together: TensorLiveness
    """All of them together."""
    n_probe_tokens: Count
    """Probe tokens."""
    base_parity_rms: Number | None
    """Root mean square of llama.cpp − transformers for the base model, in nats: the floor of the measurement."""
    routing_flips: Count
    """Probe tokens left out because their experts differ between the two runtimes."""
    live_share: Share
    """Share of the adapter's parameters that are live in llama.cpp."""
    identical_tensors: Count
    """Tensors of the tuned file that are byte-identical to the base file's."""
    n_tensors: Count
    """Tensors of the tuned file."""
    vacuous: bool
    """Whether nothing is proved, since the update is zero by construction."""
    passed: bool
    """Whether the certificate passed."""
    note: Text
    """Remark; may be empty."""
    in_file: FileEffect | None
    """The whole update in the file used for the answers; null if `together` was measured on that very file."""
    how: Literal["graft", "adapter"]
    """How the update reaches llama.cpp: merged into the file, or as a separate adapter."""


class Certificates(Section):
    """What was trained, and how much of it arrived in llama.cpp."""

    training: TrainingCertificate
    """What training moved."""
    export: ExportCertificate
    """What arrived in llama.cpp."""


class BaseFile(Section):
    """The base model as a GGUF file."""

    sha256: Text
    """Hash of the file."""
    tensor_types: dict[str, Count]
    """GGML type → tensors."""
    parity: dict[str, Number | None]
    """Log-probability differences llama.cpp − transformers on the same tokens: `mean_abs`, `max_abs`, ..."""
