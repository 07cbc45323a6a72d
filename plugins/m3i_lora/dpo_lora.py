"""The trainer `dpo_lora`: preference training of low-rank updates on the selected layers, with a certificate."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import m3i
from m3i import Adapter, ConfigError, StageError, TargetInfo, TrainedTensor, TrainingCertificate, TrainRequest

from .placement import GROUPS, Placement, lora_config, place

if TYPE_CHECKING:
    from .certificate import Factors

LOG_COLUMNS = {
    "loss": "loss",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
"""TRL's name → the name in the log."""


class Schedule(str, Enum):
    """Learning-rate schedule. Names equal values, since Hydra reads an Enum by its names."""

    constant = "constant"
    linear = "linear"
    """Falls linearly to zero."""
    cosine = "cosine"


@dataclass(kw_only=True)
class DpoLora(m3i.Component):
    """Trains LoRA updates on the selected layers only, with direct preference optimisation (TRL and PEFT).

    Every run is certified: each factor moves, nothing else has a gradient, and every other tensor is bit-identical
    afterwards; a run that fails the certificate is an error. Source: Rafailov et al. 2305.18290, equation 7 (the loss);
    Hu et al. 2106.09685 (the update).
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft", "trl", "accelerate")

    rank: int = 16
    """Rank r of the update W + (alpha / r) B A, ≥ 1. Source: Hu et al. 2106.09685, section 4.1."""
    alpha: int = 32
    """Scale of the update, ≥ 1: the update is multiplied by alpha / rank."""
    modules: list[str] = m3i.option(factory=lambda: ["auto"])
    """Weights to train in each selected layer. Groups: `auto` (attention, and the router if there is one), `attention`,
    `mla`, `router`, `mlp` (dense MLPs and shared experts); or names within a layer, e.g. `self_attn.o_proj`."""
    beta: float = 0.1
    """Strength of the pull towards the base model, > 0. Source: Rafailov et al. 2305.18290, equation 7."""
    nll_weight: float = 0.0
    """Weight, ≥ 0, of the mean negative log-likelihood of the chosen completions' tokens, added to the loss. DPO alone
    may lower the likelihood of the chosen completion too, as long as the rejected one's falls further; this term
    counteracts that. Source: Pang et al. 2404.19733, equation 1 (their alpha; 1 in their best results on reasoning)."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW (without weight decay), > 0. The default is the largest value tried that did not
    lower the accuracy of `tiny` on problems of its training side (0.64 before) when layers 3, 6 and 9 were trained:
    0.64 after 1e-4, 0.62 after 2e-4, 0.60 after 3e-4, 0.53 after 5e-4."""
    schedule: Schedule = Schedule.linear
    """Learning-rate schedule: `constant`, `linear` or `cosine`; no warm-up."""
    epochs: int = 3
    """Passes over the pairs, ≥ 1."""
    batch_size: int = 8
    """Pairs per optimizer step, ≥ 1."""
    max_grad_norm: float = 1.0
    """Maximum gradient norm, > 0; larger gradients are scaled down to it."""

    def __post_init__(self) -> None:
        """Checks the values that can be checked without a target."""
        m3i.require(self.rank >= 1, "trainer.rank", self.rank, "an integer of at least 1")
        m3i.require(self.alpha >= 1, "trainer.alpha", self.alpha, "an integer of at least 1")
        m3i.require(self.beta > 0, "trainer.beta", self.beta, "a number above 0")
        m3i.require(self.nll_weight >= 0, "trainer.nll_weight", self.nll_weight, "a number of at least 0")
        m3i.require(self.learning_rate > 0, "trainer.learning_rate", self.learning_rate, "a number above 0")
        m3i.require(self.epochs >= 1, "trainer.epochs", self.epochs, "an integer of at least 1")
        m3i.require(self.batch_size >= 1, "trainer.batch_size", self.batch_size, "an integer of at least 1")
        m3i.require(self.max_grad_norm > 0, "trainer.max_grad_norm", self.max_grad_norm, "a number above 0")
        known = f"groups ({', '.join(GROUPS)}) or names within a layer such as self_attn.o_proj"
        m3i.require(bool(self.modules), "trainer.modules", self.modules, f"at least one of {known}")
        for name in self.modules:
            m3i.require(name in GROUPS or "." in name, "trainer.modules", name, known)

    def check(self, info: TargetInfo) -> None:
        """Refuses groups of weights that the target's configuration rules out."""
        if "mla" in self.modules and not info.config.get("kv_lora_rank"):
            raise ConfigError(
                f"trainer.modules asks for 'mla', but {info.name} ({info.architecture}) has no multi-head latent "
                "attention; use 'attention' or 'auto'"
            )
        if "router" in self.modules and not info.n_experts:
            raise ConfigError(
                f"trainer.modules asks for 'router', but {info.name} ({info.architecture}) is not a mixture-of-experts "
                "model; use 'attention' or 'auto'"
            )

    def train(self, request: TrainRequest) -> Adapter:
        """Trains, certifies and writes the adapter into `request.folder`.

        On return, and on an error, the target's model in memory is the base model again.

        Raises:
            ConfigError: The target lacks these layers or modules, or there are too few pairs for two steps.
            StageError: The loss or the adapter is not finite, an adapter tensor does not move, or a tensor outside it
                has a gradient or changes.
        """
        from .shared_model import borrowed, fingerprints

        model, sham = request.target.loaded.model, request.selection.zero_update
        placement = place(request.target.loaded, request.selection.layers, self.modules)
        if not sham:
            _check_material(request, steps=self.epochs * -(-len(request.pairs.pairs) // self.batch_size))
        before = fingerprints(model)
        started = time.monotonic()
        with borrowed(model, request.seed):
            run = self._leave_at_zero(request, placement) if sham else self._fit(request, placement)
        seconds = time.monotonic() - started
        after = fingerprints(model)
        _check_untouched(before, after)
        tokens = sum(2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in request.pairs.pairs)
        return Adapter(
            certificate=TrainingCertificate(
                tensors=run.tensors,
                n_trainable=sum(t.n_trainable for t in run.tensors),
                n_frozen_tensors=len(before),
                frozen_identical=before == after,
                frozen_without_gradient=run.frozen_without_gradient,
                vacuous=sham,
                notes=placement.notes,
            ),
            log=run.log,
            train_time_s=0.0 if sham else seconds,
            n_tokens=0 if sham else self.epochs * tokens,
        )

    def _fit(self, request: TrainRequest, placement: Placement) -> _Run:
        """The real training run."""
        from .certificate import Watch
        from .preference import build_trainer

        trainer = build_trainer(
            self,
            request.target.loaded,
            lora_config(placement, rank=self.rank, alpha=self.alpha),
            request.pairs,
            request.reference,
            seed=request.seed,
            folder=request.folder,
        )
        factors = _checked_factors(request.target.loaded, placement)
        watch = Watch(factors, request.tick)
        trainer.add_callback(watch)
        trainer.train()
        _write_adapter(trainer.model, placement, request)
        rows = [row for row in trainer.state.log_history if "loss" in row]
        return _Run(
            tensors=tuple(f.trained_tensor() for f in factors),
            log=tuple(
                {"step": float(row["step"]), **{ours: float(row[theirs]) for theirs, ours in LOG_COLUMNS.items()}}
                for row in rows
            ),
            frozen_without_gradient=watch.steps_without_strangers == len(rows),
        )

    def _leave_at_zero(self, request: TrainRequest, placement: Placement) -> _Run:
        """The sham arm: an untrained adapter, in which every B is zero, so that W + (alpha / r) B A is W."""
        from peft import get_peft_model

        loaded = request.target.loaded
        wrapped = get_peft_model(loaded.model, lora_config(placement, rank=self.rank, alpha=self.alpha))
        factors = _checked_factors(loaded, placement)
        _write_adapter(wrapped, placement, request)
        return _Run(tensors=tuple(f.trained_tensor() for f in factors), log=(), frozen_without_gradient=True)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What a training run yields besides its files."""

    tensors: tuple[TrainedTensor, ...]
    log: tuple[dict[str, float], ...]
    frozen_without_gradient: bool


def _check_material(request: TrainRequest, steps: int) -> None:
    n_pairs = len(request.pairs.pairs)
    if not len(request.reference.chosen_P) == len(request.reference.rejected_P) == n_pairs:
        raise StageError(
            f"{n_pairs} pairs came with {len(request.reference.chosen_P)} reference log-probabilities, which belong to "
            "other pairs; remove the reference artifact and run again"
        )
    if steps < 2:
        raise ConfigError(
            f"{n_pairs} pairs give too few optimizer steps ({steps}): the certificate needs 2 to see every "
            "factor move; lower trainer.batch_size, raise trainer.epochs or sample more traces"
        )


def _checked_factors(loaded: Any, placement: Placement) -> list[Factors]:
    """The factors in the model; raises StageError unless they are exactly those of the placement."""
    from .certificate import find_factors

    prefix = next(name for name, module in loaded.model.named_modules() if module is loaded.layers)
    factors = find_factors(loaded.model, prefix)
    got, wanted = sorted(f.name for f in factors), sorted(placement.weights)
    if got != wanted:
        differ = sorted(set(got) ^ set(wanted))
        raise StageError(f"PEFT wrapped weights other than those selected; they differ in {', '.join(differ[:4])}")
    return factors


def _check_untouched(before: dict[str, str], after: dict[str, str]) -> None:
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise StageError(
            f"training changed {len(changed)} tensors outside the adapter, the first is {changed[0]}; the target in "
            "memory is no longer the base model, so the run stops"
        )


def _write_adapter(wrapped: Any, placement: Placement, request: TrainRequest) -> None:
    """Writes PEFT's two files; equal adapters give equal bytes, wherever the base model is stored."""
    wrapped.save_pretrained(str(request.folder), save_embedding_layers=False)
    (request.folder / "README.md").unlink(missing_ok=True)  # a template to fill in, of no use here
    path: Path = request.folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # PEFT shortens long lists of names to suffixes and writes sets in no fixed order
    config["target_modules"] = sorted(placement.modules)
    config["target_parameters"] = sorted(placement.parameters) or None
    config["base_model_name_or_path"] = request.target.info.name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
