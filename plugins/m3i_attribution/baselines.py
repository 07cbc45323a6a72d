"""Baselines: what a layer writes in correct traces, which its contribution is compared with.

Letters: L layers, N contrasts, B traces of a batch, T tokens, C predicted tokens of a batch, D model width, K correct
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from m3i import Contrast, StageError, Trace
from m3i.models.batching import pad_right

from .decoder import recording, run

if TYPE_CHECKING:
    import torch

    from m3i import LoadedTarget

BASELINES = ("zero", "mean", "right_token")


@dataclass
class Baseline:
    """Mean contribution of every layer over correct traces."""

    mean_LD: torch.Tensor
    by_token_LKD: torch.Tensor
    """Mean over the positions that correctly predict the k-th token; the plain mean if there are too few of them."""
    row: dict[int, int]
    """Token id → k."""

    def at_contrasts(self, kind: str, contrasts: Sequence[Contrast]) -> torch.Tensor:
        """The baseline of each contrast, N × L × D."""
        import torch

        if kind == "right_token":
            k_N = torch.tensor([self.row[c.right_id] for c in contrasts], device=self.mean_LD.device)
            return self.by_token_LKD[:, k_N].transpose(0, 1)
        return self.mean_LD.expand(len(contrasts), *self.mean_LD.shape)


def measure_baseline(
    loaded: LoadedTarget,
    kind: str,
    component: str,
    contrasts: Sequence[Contrast],
    traces: Sequence[Trace],
    *,
    n_traces: int,
    min_count: int,
    batch_size: int,
) -> Baseline:
    """Measures a baseline: `zero` runs nothing, `mean` and `right_token` run correct traces.

    Args:
        loaded: The target.
        kind: `zero`, `mean` or `right_token`.
        component: `layer`, `attention` or `mlp`.
        contrasts: Their correct tokens are the classes of `right_token`.
        traces: All traces; the correct ones are used, in their order.
        n_traces: Maximum number of correct traces to run.
        min_count: Positions that a class needs for a mean of its own.
        batch_size: Traces per forward pass.

    Raises:
        StageError: The baseline needs correct traces and there are none.
    """
    import torch

    device = loaded.model.device
    row = {token: k for k, token in enumerate(sorted({c.right_id for c in contrasts}))}
    n_layers, width = len(loaded.layers), loaded.unembedding.weight.shape[1]
    sum_LD = torch.zeros(n_layers, width, dtype=torch.float64, device=device)
    sum_LKD = torch.zeros(n_layers, len(row), width, dtype=torch.float64, device=device)
    count_K = torch.zeros(len(row), dtype=torch.float64, device=device)
    total = 0
    if kind != "zero":
        right = [t for t in traces if t.correct and t.completion_ids][:n_traces]
        if not right:
            raise StageError(
                f"baseline '{kind}' averages over correct traces, but there are none: trace more samples or an easier "
                f"problem set, or choose baseline=zero"
            )
        right.sort(key=lambda t: len(t.prompt_ids) + len(t.completion_ids))
        with torch.no_grad(), recording(loaded, component) as writes:
            for first in range(0, len(right), batch_size):
                batch = right[first : first + batch_size]
                ids_BT, real_BT = pad_right([[*t.prompt_ids, *t.completion_ids] for t in batch], device)
                run(loaded, ids_BT, real_BT)
                rows_C, positions_C, classes_C = _predicted(batch, row, device)
                known_C = classes_C >= 0
                total += len(rows_C)
                count_K += torch.bincount(classes_C[known_C], minlength=len(row))
                for write in writes:
                    acts_CD = write.contribution_BTD[rows_C, positions_C].double()
                    sum_LD[write.layer] += acts_CD.sum(dim=0)
                    sum_LKD[write.layer].index_add_(0, classes_C[known_C], acts_CD[known_C])
    mean_LD = sum_LD / max(total, 1)
    by_token_LKD = sum_LKD / count_K.clamp_min(1)[:, None]
    rare_K = count_K < min_count
    by_token_LKD[:, rare_K] = mean_LD[:, None]
    return Baseline(mean_LD=mean_LD.float(), by_token_LKD=by_token_LKD.float(), row=row)


def _predicted(
    batch: Sequence[Trace], row: dict[int, int], device: object
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Batch row, position and class (−1: none) of every predicted completion token."""
    import torch

    rows, positions, classes = [], [], []
    for i, trace in enumerate(batch):
        for j, token in enumerate(trace.completion_ids):
            rows.append(i)
            positions.append(len(trace.prompt_ids) + j - 1)
            classes.append(row.get(token, -1))
    as_tensor = [torch.tensor(x, device=device) for x in (rows, positions, classes)]  # type: ignore[arg-type]
    return as_tensor[0], as_tensor[1], as_tensor[2]
