"""Exact interventions: one layer's contribution is replaced by its baseline and the rest of the model is rerun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from m3i import AttributionRequest, AttributionRows, Component, Contrast, require

from .baselines import BASELINES, measure_baseline
from .decoder import (
    COMPONENTS,
    ContrastBatch,
    Write,
    contrast_batches,
    distinct,
    logit_difference,
    recording,
    replacing,
    rows_of,
    run,
    run_from,
)

if TYPE_CHECKING:
    import torch

    from m3i import LoadedTarget

POSITIONS = ("contrast", "all")


@dataclass(kw_only=True)
class Intervention(Component):
    """Options that `ablation` and its linear approximation `attribution_patching` share."""

    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    baseline: str = "mean"
    """What a layer's contribution is replaced by: `zero`, its `mean` over predicted positions of correct traces, or
    `right_token`: its mean over the positions of correct traces that predict the contrast's correct token."""
    component: str = "layer"
    """`layer`, `attention` or `mlp`: which part of a layer is replaced."""
    positions: str = "contrast"
    """Where it is replaced: only at the `contrast` position, or at `all` positions of the context except the first
    (which attention uses as a sink, unlike any other)."""
    baseline_traces: int = 64
    """Maximum number of correct traces that the baseline is measured on."""
    min_count: int = 5
    """Positions that a correct token needs for a mean of its own under `right_token`; rarer tokens use the plain
    mean."""
    batch_size: int = 32
    """Contrasts per forward pass."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.baseline in BASELINES, "baseline", self.baseline, "zero, mean or right_token")
        require(self.component in COMPONENTS, "component", self.component, "layer, attention or mlp")
        require(self.positions in POSITIONS, "positions", self.positions, "contrast or all")
        require(
            self.baseline != "right_token" or self.positions == "contrast",
            "baseline",
            self.baseline,
            "zero or mean with positions=all: the correct token is known only at the contrast",
        )
        require(self.baseline_traces >= 1, "baseline_traces", self.baseline_traces, "at least 1")
        require(self.min_count >= 1, "min_count", self.min_count, "at least 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")

    def counterparts(self, request: AttributionRequest, contrasts: Sequence[Contrast]) -> torch.Tensor:
        """The baseline of each contrast and layer, N × L × D."""
        loaded = request.target.loaded
        baseline = measure_baseline(
            loaded,
            self.baseline,
            self.component,
            contrasts,
            request.traces,
            n_traces=self.baseline_traces,
            min_count=self.min_count,
            batch_size=self.batch_size,
        )
        return baseline.at_contrasts(self.baseline, contrasts)

    def place(self, batch: ContrastBatch) -> torch.Tensor:
        """The mask of positions at which contributions are replaced, B × T × 1."""
        import torch

        position_T = torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device)
        at_BT = position_T == batch.last_B[:, None]
        if self.positions == "all":
            at_BT = batch.real_BT & (position_T > 0) | at_BT
        return at_BT[..., None]


@dataclass(kw_only=True)
class Ablation(Intervention):
    """Replaces one layer's contribution by a baseline and measures how far logit(wrong) − logit(right) falls.

    Exact, one layer at a time, with effects through later layers included: value = intact difference − difference after
    replacement. Source: Wang et al. 2211.00593, section 2.2 (mean ablation); Meng et al. 2202.05262, section 2.1
    (indirect effect of one layer's state).
    """

    strength: float = 1.0
    """How far the contribution moves towards the baseline, in (0, 1]; 1 replaces it. Values are divided by the
    strength, so that a small one approaches the derivative that `attribution_patching` takes."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        require(0 < self.strength <= 1, "strength", self.strength, "a number above 0, at most 1")

    def attribute(self, request: AttributionRequest) -> AttributionRows:
        """Returns one row per contrast, in logits."""
        import torch

        loaded = request.target.loaded
        contrasts, which = distinct(request.contrasts)
        values_NL = np.zeros((len(contrasts), len(loaded.layers)))
        if contrasts:
            with torch.no_grad():
                baseline_NLD = self.counterparts(request, contrasts)
                done = 0
                for batch in contrast_batches(loaded, contrasts, self.batch_size):
                    values_NL[batch.indices] = self._effects(loaded, batch, baseline_NLD[batch.indices])
                    done += len(batch.indices)
                    request.tick(done, len(contrasts))
        return rows_of(request.contrasts, values_NL[which])

    def _effects(self, loaded: LoadedTarget, batch: ContrastBatch, baseline_BLD: torch.Tensor) -> np.ndarray:
        with recording(loaded, "layer") as layer_calls, recording(loaded, self.component) as site_calls:
            run(loaded, batch.ids_BT, batch.real_BT)
            calls, sites = list(layer_calls), list(site_calls)
        intact_B = logit_difference(loaded, batch.last(calls[-1].site_BTD), batch)
        place_BT1 = self.place(batch)
        effects = []
        for write in sites:
            towards_B1D = baseline_BLD[:, write.layer, None].to(write.site_BTD.dtype)
            moved_BTD = write.site_BTD + self.strength * place_BT1 * (towards_B1D - write.contribution_BTD)
            final_BTD = self._rerun(loaded, write, moved_BTD, calls)
            effects.append((intact_B - logit_difference(loaded, batch.last(final_BTD), batch)) / self.strength)
        return np.stack([e.cpu().numpy() for e in effects], axis=1)

    def _rerun(
        self, loaded: LoadedTarget, write: Write, moved_BTD: torch.Tensor, calls: Sequence[Write]
    ) -> torch.Tensor:
        """The last layer's output after one site is replaced; earlier layers are not rerun."""
        if self.component == "layer":
            return run_from(loaded, moved_BTD, write.layer + 1, calls)
        before_BTD = calls[write.layer].residual_BTD
        assert before_BTD is not None
        with replacing(loaded, write.layer, self.component, moved_BTD):
            return run_from(loaded, before_BTD, write.layer, calls)
