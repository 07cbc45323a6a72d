"""Direct logit attribution: what each layer itself writes in favour of the incorrect token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from m3i import AttributionRequest, AttributionRows, Component, ConfigError, Contrast, Tick, no_tick, require

from .decoder import COMPONENTS, contrast_batches, distinct, logit_difference, recording, rows_of, run

if TYPE_CHECKING:
    import torch

    from m3i import LoadedTarget


@dataclass(kw_only=True)
class LogitLens(Component):
    """Projects what each layer writes at the contrast position on W_U[wrong] − W_U[right].

    The final norm is frozen at the scale it has on the whole residual stream, which makes it linear: the values of all
    layers and of the embedding add up to logit(wrong) − logit(right). Effects that pass through later layers are
    credited to those layers. Source: Elhage et al. 2021, "A mathematical framework for transformer circuits" (direct
    path to the logits); Wang et al. 2211.00593, section 3 (logit difference, norm folded in).
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    component: str = "layer"
    """`layer`, `attention` or `mlp`: which part of a layer is projected."""
    batch_size: int = 32
    """Contrasts per forward pass."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.component in COMPONENTS, "component", self.component, "layer, attention or mlp")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")

    def attribute(self, request: AttributionRequest) -> AttributionRows:
        """Returns one row per contrast, in logits; the embedding's own share belongs to no layer and is dropped."""
        contrasts, which = distinct(request.contrasts)
        parts = decompose(
            request.target.loaded, contrasts, self.component, batch_size=self.batch_size, tick=request.tick
        )
        return rows_of(request.contrasts, parts.layers_NL[which])


@dataclass(frozen=True)
class Decomposition:
    """logit(wrong) − logit(right) taken apart: bias + embedding + sum over layers (component `layer`)."""

    difference_N: np.ndarray
    embedding_N: np.ndarray
    bias_N: np.ndarray
    layers_NL: np.ndarray


def decompose(
    loaded: LoadedTarget,
    contrasts: Sequence[Contrast],
    component: str = "layer",
    *,
    batch_size: int = 32,
    tick: Tick = no_tick,
) -> Decomposition:
    """Returns every layer's direct contribution to the logit difference at the contrasts, in logits.

    Raises:
        ConfigError: The final norm is not linear at a frozen scale (it is not an RMSNorm).
    """
    import torch

    n, n_layers = len(contrasts), len(loaded.layers)
    out = Decomposition(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros((n, n_layers)))
    done = 0
    with torch.no_grad(), recording(loaded, component) as writes, recording(loaded, "layer") as layers:
        for batch in contrast_batches(loaded, contrasts, batch_size):
            run(loaded, batch.ids_BT, batch.real_BT)
            final_BD = batch.last(layers[-1].site_BTD)
            first = layers[0].residual_BTD
            assert first is not None
            weighted_BD = batch.direction_BD * frozen_norm(loaded.final_norm, final_BD)
            out.difference_N[batch.indices] = logit_difference(loaded, final_BD, batch).cpu().numpy()
            out.bias_N[batch.indices] = batch.bias_B.cpu().numpy()
            out.embedding_N[batch.indices] = (batch.last(first).float() * weighted_BD).sum(dim=-1).cpu().numpy()
            for write in writes:
                added_BD = batch.last(write.contribution_BTD).float()
                out.layers_NL[batch.indices, write.layer] = (added_BD * weighted_BD).sum(dim=-1).cpu().numpy()
            done += len(batch.indices)
            tick(done, n)
    return out


def frozen_norm(norm: Any, state_BD: torch.Tensor) -> torch.Tensor:
    """The factors f with norm(x) = f ⊙ x at x = `state_BD`: gain over root mean square, B × D, float32.

    Raises:
        ConfigError: No such factors exist (a norm that subtracts a mean or adds a bias).
    """
    import torch

    x_BD = state_BD.float()
    # A large constant input reveals the gain: the norm's epsilon is negligible beside 1e6.
    gain_D = norm(torch.full_like(state_BD[:1], 1e3)).float()[0]
    normed_BD = norm(state_BD).float()
    gained_BD = gain_D * x_BD
    scale_B1 = (normed_BD * gained_BD).sum(-1, keepdim=True) / gained_BD.pow(2).sum(-1, keepdim=True).clamp_min(1e-30)
    error = (scale_B1 * gained_BD - normed_BD).abs().max() / normed_BD.abs().max().clamp_min(1e-30)
    if not error < 0.02:
        raise ConfigError(
            f"attributor logit_lens needs a final RMSNorm; {type(norm).__name__} is not linear at a frozen scale "
            f"(relative error {float(error):.2g}). Choose attributor=attribution_patching or ablation"
        )
    factors_BD: torch.Tensor = gain_D * scale_B1
    return factors_BD
