"""The target, the adapter and the files that llama.cpp runs, each with its certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from m3i.artifacts.base import RECORDS, Artifact


@dataclass(frozen=True, kw_only=True)
class TargetInfo:
    """Facts about a target, read from its configuration."""

    name: str
    revision: str
    """Commit or content hash; targets with the same revision have the same weights."""
    architecture: str
    """Class name in transformers, e.g. DeepseekV2ForCausalLM."""
    family: str
    """The model's maker, e.g. `deepseek`; a judge or observer of the same family is flagged."""
    n_layers: int
    n_parameters: int
    """Parameters on disk; tied embeddings count once."""
    n_active: int
    """Parameters used per token; fewer than `n_parameters` in a MoE model."""
    n_experts: int = 0
    n_experts_active: int = 0
    dense_layers: tuple[int, ...] = ()
    """Layers without a router in a model that has routers elsewhere."""
    device: str = "cpu"
    """Kind of device the weights are loaded onto: cpu, cuda, ... (resolved, never `auto`)."""
    dtype: str = "float32"
    """Data type of the weights in memory."""
    config: dict[str, Any] = field(default_factory=dict)
    """The Hugging Face configuration."""
    files: dict[str, str] = field(default_factory=dict)
    """Local paths: `model` (folder), `gguf` (the target's own GGUF, if it has one)."""

    def default_candidates(self) -> tuple[int, ...]:
        """Returns the candidates unless `selector.candidates=all`: layers with a router in a MoE model, else all."""
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
    """Optimizer step after which A differs from its initial value; None if it never does."""
    first_moved_b: int | None


@dataclass(frozen=True, kw_only=True)
class TrainingCertificate:
    """Evidence of which tensors training changed and which it left alone."""

    tensors: tuple[TrainedTensor, ...]
    n_trainable: int
    n_frozen_tensors: int
    frozen_identical: bool
    """Every tensor outside the adapter is bit-identical before and after."""
    frozen_without_gradient: bool
    vacuous: bool = False
    """Sham arm: the update is zero by construction, so the certificate proves nothing."""
    notes: tuple[str, ...] = ()
    """What the trainer left out, in words, e.g. a dense layer without a router."""


@dataclass(frozen=True, kw_only=True)
class Adapter(Artifact):
    """A PEFT adapter: `folder` loads with `PeftModel.from_pretrained`."""

    kind: ClassVar[str] = "adapter"
    certificate: TrainingCertificate
    log: tuple[dict[str, float], ...] = field(metadata=RECORDS)
    """One row per optimizer step: step, loss, reward_margin, reward_accuracy, grad_norm, learning_rate."""
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
        """Returns the absolute path of the GGUF."""
        return self.folder / self.path


@dataclass(frozen=True, kw_only=True)
class TensorLiveness:
    """The effect of one trained tensor applied alone, in PEFT and in llama.cpp."""

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
    """Factor that the update was multiplied by for the measurement, to raise its effect above the parity noise."""
    erased_share: float = 0.0
    """Share of the update's elements below half a step of the stored type: they change nothing in the file."""
    storage_error: float = 0.0
    """|stored update − update| / |update|, Frobenius norms: what the stored type costs at factor 1."""


@dataclass(frozen=True, kw_only=True)
class FileEffect:
    """The effect of the whole update on log-probabilities, in the file that produces the answers."""

    peft_norm: float
    """Root mean square over probe tokens of tuned − base in PEFT, nats."""
    llama_norm: float
    """The same in llama.cpp."""
    relative_error: float
    """|d_llama − d_peft| / |d_peft|."""


@dataclass(frozen=True, kw_only=True)
class ExportCertificate:
    """Evidence that the evaluated update is the trained one."""

    tensors: tuple[TensorLiveness, ...]
    together: TensorLiveness
    n_probe_tokens: int
    base_parity_rms: float
    """Root mean square of llama.cpp − transformers for the base model, nats: smaller effects cannot be seen."""
    routing_flips: int
    """Probe tokens whose top-k experts differ between the two runtimes; excluded from the errors, counted here."""
    live_share: float
    """Share of the adapter's parameters that are live in llama.cpp."""
    identical_tensors: int
    """Tensors of the tuned file that are byte-identical to the base file's."""
    n_tensors: int
    vacuous: bool = False
    passed: bool = True
    note: str = ""
    in_file: FileEffect | None = None
    """The whole update in the file that produces the answers, if `tensors` and `together` were measured on its F32
    twin: the file's own kernels round activations, which can distort a small update. None if the file itself was
    measured."""


@dataclass(frozen=True, kw_only=True)
class Export(Artifact):
    """The tuned model for llama.cpp: a whole GGUF, or the base with a GGUF adapter."""

    kind: ClassVar[str] = "export"
    model_path: str | None
    """Tuned GGUF relative to `folder`; None when the base file is used with `adapter_path`."""
    adapter_path: str | None
    certificate: ExportCertificate
