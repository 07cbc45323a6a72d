"""The decoder as attributors see it: what each layer adds to the residual stream, and the logit difference at its end.

Letters: N contrasts, B contrasts of a batch, T tokens (padded), D model width, L layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from m3i import AttributionRows, Contrast
from m3i.models.batching import pad_right

if TYPE_CHECKING:
    import torch

    from m3i import LoadedTarget

COMPONENTS = ("layer", "attention", "mlp")
"""Parts of a layer: everything it adds to the residual stream, or one of its two branches."""


@dataclass
class ContrastBatch:
    """A batch of contrasts, right-padded."""

    indices: list[int]
    """Indices into the list that was batched."""
    ids_BT: torch.Tensor
    real_BT: torch.Tensor
    last_B: torch.Tensor
    """Position of the last context token: the one that predicts the incorrect or the correct token."""
    direction_BD: torch.Tensor
    """W_U[wrong] − W_U[right], float32."""
    bias_B: torch.Tensor
    """The same difference of the unembedding's bias; 0 if it has none."""

    def last(self, state_BTD: torch.Tensor) -> torch.Tensor:
        """Rows of a state at the contrast positions, B × D."""
        import torch

        rows_BD: torch.Tensor = state_BTD[torch.arange(len(self.last_B), device=state_BTD.device), self.last_B]
        return rows_BD


def distinct(contrasts: Sequence[Contrast]) -> tuple[list[Contrast], list[int]]:
    """The distinct contrasts, and the index of each given contrast among them.

    Observers that point at the same token, and samples that begin alike, ask the model the same question.
    """
    places: dict[tuple[tuple[int, ...], int, int], int] = {}
    first: list[Contrast] = []
    which: list[int] = []
    for contrast in contrasts:
        question = (contrast.context_ids, contrast.wrong_id, contrast.right_id)
        if question not in places:
            places[question] = len(first)
            first.append(contrast)
        which.append(places[question])
    return first, which


def rows_of(contrasts: Sequence[Contrast], values_NL: np.ndarray) -> AttributionRows:
    """The values in the core's form, one row per contrast."""
    return AttributionRows(
        observers=[c.observer for c in contrasts], trace_ids=[c.trace_id for c in contrasts], values_NL=values_NL
    )


def contrast_batches(loaded: LoadedTarget, contrasts: Sequence[Contrast], batch_size: int) -> Iterator[ContrastBatch]:
    """The contrasts in batches of similar length."""
    import torch

    device = loaded.model.device
    weight_VD = loaded.unembedding.weight.detach()
    bias = getattr(loaded.unembedding, "bias", None)
    order = sorted(range(len(contrasts)), key=lambda i: len(contrasts[i].context_ids))
    for first in range(0, len(order), batch_size):
        indices = order[first : first + batch_size]
        chosen = [contrasts[i] for i in indices]
        ids_BT, real_BT = pad_right([c.context_ids for c in chosen], device)
        wrong_B = torch.tensor([c.wrong_id for c in chosen], device=device)
        right_B = torch.tensor([c.right_id for c in chosen], device=device)
        yield ContrastBatch(
            indices=indices,
            ids_BT=ids_BT,
            real_BT=real_BT,
            last_B=torch.tensor([len(c.context_ids) - 1 for c in chosen], device=device),
            direction_BD=weight_VD[wrong_B].float() - weight_VD[right_B].float(),
            bias_B=torch.zeros(len(chosen), device=device) if bias is None else (bias[wrong_B] - bias[right_B]).float(),
        )


def logit_difference(loaded: LoadedTarget, last_BD: torch.Tensor, batch: ContrastBatch) -> torch.Tensor:
    """logit(wrong) − logit(right) from the last layer's output at the contrast positions, float32, B values.

    Only two rows of the unembedding are multiplied, so the cost does not grow with the vocabulary.
    """
    normed_BD: torch.Tensor = loaded.final_norm(last_BD).float()
    return (normed_BD * batch.direction_BD).sum(dim=-1) + batch.bias_B


@dataclass
class Write:
    """What a layer, or one of its branches, wrote in one forward pass."""

    layer: int
    site_BTD: torch.Tensor
    """The tensor that a hook can replace: the layer's output, or its branch's."""
    residual_BTD: torch.Tensor | None
    """The layer's input where `site_BTD` includes it, None for a branch."""
    args: tuple[Any, ...]
    """The arguments the layer was called with, for `run_from`; empty for a branch."""
    kwargs: dict[str, Any]

    @property
    def contribution_BTD(self) -> torch.Tensor:
        """What was added to the residual stream."""
        return self.site_BTD if self.residual_BTD is None else self.site_BTD - self.residual_BTD


def site_module(layer: Any, component: str) -> Any:
    """The module whose output is the component's site."""
    return {"layer": layer, "attention": layer.self_attn, "mlp": layer.mlp}[component]


@contextmanager
def recording(loaded: LoadedTarget, component: str) -> Iterator[list[Write]]:
    """Records what each layer writes during forward passes inside the block; the hooks are removed at its end.

    Yields:
        A list that each forward pass refills, in layer order.
    """
    writes: list[Write] = []

    def hook_of(i: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if i == 0:
                writes.clear()
            site = output[0] if isinstance(output, tuple) else output
            whole = component == "layer"
            before = (args[0] if args else kwargs["hidden_states"]) if whole else None
            writes.append(Write(i, site, before, args if whole else (), kwargs if whole else {}))

        return hook

    handles = [
        site_module(layer, component).register_forward_hook(hook_of(i), with_kwargs=True)
        for i, layer in enumerate(loaded.layers)
    ]
    try:
        yield writes
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replacing(loaded: LoadedTarget, layer: int, component: str, site_BTD: torch.Tensor) -> Iterator[None]:
    """Replaces the output of one site in forward passes inside the block."""

    def hook(module: Any, args: tuple[Any, ...], output: Any) -> Any:
        return (site_BTD, *output[1:]) if isinstance(output, tuple) else site_BTD

    handle = site_module(loaded.layers[layer], component).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def run(loaded: LoadedTarget, ids_BT: torch.Tensor, real_BT: torch.Tensor) -> None:
    """Runs the decoder once, without the unembedding; hooks see the pass."""
    loaded.model.base_model(input_ids=ids_BT, attention_mask=real_BT.long(), use_cache=False)


def run_from(loaded: LoadedTarget, state_BTD: torch.Tensor, first: int, calls: Sequence[Write]) -> torch.Tensor:
    """The last layer's output when the input of layer `first` is `state_BTD`.

    Args:
        loaded: The target.
        state_BTD: Residual stream before layer `first`.
        first: First layer to run; the number of layers runs none.
        calls: A recording of component `layer` on the same tokens, which supplies masks and rotary embeddings.
    """
    for layer, call in zip(loaded.layers[first:], calls[first:], strict=True):
        if call.args:
            output = layer(state_BTD, *call.args[1:], **call.kwargs)
        else:
            output = layer(**{**call.kwargs, "hidden_states": state_BTD})
        state_BTD = output[0] if isinstance(output, tuple) else output
    return state_BTD
