"""Watches a training run: at which step each adapter tensor moved, and that no other tensor had a gradient.

Letters: O output width, I input width, R rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from transformers import TrainerCallback

from m3i import StageError, TrainedTensor

if TYPE_CHECKING:
    from torch import nn

ADAPTER = "default"
"""PEFT's name for the only adapter."""


@dataclass
class Factors:
    """The two LoRA factors of one weight, and when each first moved."""

    name: str
    """Full name of the base weight."""
    layer: int
    a_RI: torch.Tensor
    b_OR: torch.Tensor
    scaling: float
    """alpha / r."""
    start_a_RI: torch.Tensor = field(init=False)
    start_b_OR: torch.Tensor = field(init=False)
    first_moved_a: int | None = None
    first_moved_b: int | None = None

    def __post_init__(self) -> None:
        """Keeps the starting values."""
        self.start_a_RI, self.start_b_OR = self.a_RI.detach().clone(), self.b_OR.detach().clone()

    def note_movement(self, step: int) -> None:
        """Records the step at which a factor first differs from its start."""
        if self.first_moved_a is None and not torch.equal(self.a_RI, self.start_a_RI):
            self.first_moved_a = step
        if self.first_moved_b is None and not torch.equal(self.b_OR, self.start_b_OR):
            self.first_moved_b = step

    def trained_tensor(self) -> TrainedTensor:
        """The certificate's row."""
        update_OI = self.scaling * self.b_OR.detach().double() @ self.a_RI.detach().double()
        return TrainedTensor(
            name=self.name,
            layer=self.layer,
            shape=(self.b_OR.shape[0], self.a_RI.shape[1]),
            n_trainable=self.a_RI.numel() + self.b_OR.numel(),
            update_norm=float(update_OI.norm()),
            first_moved_a=self.first_moved_a,
            first_moved_b=self.first_moved_b,
        )


def find_factors(model: nn.Module, prefix: str) -> list[Factors]:
    """The LoRA factors in a wrapped model, in the order of its modules.

    Args:
        model: The base model that PEFT has put the adapter into.
        prefix: Name of the list of layers, e.g. `model.layers`.
    """
    found = []
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and ADAPTER in module.lora_A:
            layer: Any = module
            found.append(
                Factors(
                    name=f"{name}.{getattr(module, 'parameter_name', 'weight')}",
                    layer=int(name.removeprefix(f"{prefix}.").split(".")[0]),
                    a_RI=layer.lora_A[ADAPTER].weight,
                    b_OR=layer.lora_B[ADAPTER].weight,
                    scaling=module.scaling[ADAPTER],
                )
            )
    return found


class Watch(TrainerCallback):  # type: ignore[misc]
    """Stops the run at the first step that contradicts the certificate."""

    def __init__(self, factors: list[Factors], tick: Callable[..., None]) -> None:
        """Watches these factors; every other parameter must stay without a gradient."""
        self.factors = factors
        self.tick = tick
        self.own = {id(t) for f in factors for t in (f.a_RI, f.b_OR)}
        self.steps_without_strangers = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Checks, after the backward pass, that only the adapter has gradients."""
        strangers = [
            name for name, p in parts["model"].named_parameters() if p.grad is not None and id(p) not in self.own
        ]
        if strangers:
            raise StageError(
                f"training step {state.global_step + 1}: {len(strangers)} tensors outside the adapter have a gradient, "
                f"the first is {strangers[0]}; only the adapter may be trained, so the run stops"
            )
        self.steps_without_strangers += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Checks that every B has moved after the first optimizer step, and every A after the second.

        B starts at zero, so A has no gradient in the first step. Source: Hu et al. 2106.09685, section 4.1.
        """
        step = state.global_step
        for factors in self.factors:
            factors.note_movement(step)
            if not (torch.isfinite(factors.a_RI).all() and torch.isfinite(factors.b_OR).all()):
                raise StageError(f"training step {step}: the adapter of {factors.name} is no longer finite; {REMEDY}")
        still = [f"lora_B of {f.name}" for f in self.factors if f.first_moved_b is None]
        still += [f"lora_A of {f.name}" for f in self.factors if f.first_moved_a is None] if step >= 2 else []
        if still:
            raise StageError(
                f"after training step {step}, {len(still)} of {2 * len(self.factors)} adapter tensors have not moved: "
                f"{', '.join(still[:4])}; the model's forward pass bypasses the adapter on these weights, so leave "
                "them out with trainer.modules"
            )
        self.tick(step, state.max_steps)


REMEDY = "lower trainer.learning_rate, or check the target for damaged weights"
