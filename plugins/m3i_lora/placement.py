"""Where the adapter goes: exact names of weights in the selected layers, never a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3i import ConfigError

if TYPE_CHECKING:
    from peft import LoraConfig

    from m3i import LoadedTarget

GROUPS = {
    "auto": "the attention projections, and the router in layers that have one",
    "attention": "the attention projections, of whichever kind the target has",
    "mla": "the projections of multi-head latent attention; an error on a target without it",
    "router": "the MoE router; an error when a selected layer has none",
    "mlp": "gate, up and down projections of dense MLPs and shared experts; routed experts are not trained",
}
"""Named groups of weights in a layer, for the option `modules`."""

MLA_MARK = "self_attn.kv_a_proj_with_mqa"
MLA = (
    "self_attn.q_proj",
    "self_attn.q_a_proj",
    "self_attn.q_b_proj",
    MLA_MARK,
    "self_attn.kv_b_proj",
    "self_attn.o_proj",
)
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
ROUTER = "mlp.gate"
MLP = tuple(f"{block}.{name}_proj" for block in ("mlp", "mlp.shared_experts") for name in ("gate", "up", "down"))


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The weights to adapt."""

    modules: tuple[str, ...]
    """Linear modules by full name, for PEFT's `target_modules`."""
    parameters: tuple[str, ...]
    """Bare parameters by full name, for PEFT's `target_parameters` (this is how transformers' routers hold their
    weight)."""
    notes: tuple[str, ...] = ()
    """What a group left out, in words."""

    @property
    def weights(self) -> tuple[str, ...]:
        """Every adapted weight by full name."""
        return (*(f"{name}.weight" for name in self.modules), *self.parameters)


def place(loaded: LoadedTarget, layers: Sequence[int], groups: Sequence[str]) -> Placement:
    """Returns the weights that the groups name in the selected layers.

    Args:
        loaded: The target; only the names, types and shapes of its modules are read, so a model on the `meta` device
            will do.
        layers: Layer numbers.
        groups: Names of `GROUPS`, or names of weights within a layer such as `self_attn.o_proj` or `mlp.gate`.

    Raises:
        ConfigError: No layers, layers out of range, or a weight that the target does not have.
    """
    import torch

    n_layers = len(loaded.layers)
    wrong = [i for i in layers if not 0 <= i < n_layers]
    if wrong:
        raise ConfigError(
            f"layers {wrong} cannot be trained: {loaded.info.name} has {n_layers} layers, 0 to {n_layers - 1}"
        )
    if not layers:
        raise ConfigError("no layer was selected, so there is nothing to train; select at least one")
    prefix = next(name for name, module in loaded.model.named_modules() if module is loaded.layers)
    modules: list[str] = []
    parameters: list[str] = []
    dense = []
    has_routers = _has_routers(loaded)
    for i in sorted(set(layers)):
        here = dict(loaded.layers[i].named_modules())
        names, without_router = _names(loaded, i, here, groups)
        if without_router:
            dense.append(i)
        for name in names:
            full = f"{prefix}.{i}.{name}"
            # On mixture-of-experts models PEFT rewrites `gate_proj`, `up_proj` and `down_proj`, whatever their path, to
            # the routed experts of every layer; it leaves parameters alone.
            rewritten = has_routers and name.endswith(("gate_proj", "up_proj", "down_proj"))
            if isinstance(here[name], torch.nn.Linear) and not rewritten:
                modules.append(full)
            else:
                parameters.append(f"{full}.weight")
    notes = (f"layers {dense} are dense: no router to train there",) if dense else ()
    return Placement(modules=tuple(modules), parameters=tuple(parameters), notes=notes)


def _names(loaded: LoadedTarget, layer: int, here: dict[str, Any], groups: Sequence[str]) -> tuple[list[str], bool]:
    """Names within one layer, each once; and whether `auto` found no router in a model that has routers."""
    has_mla = MLA_MARK in here
    attention = MLA if has_mla else ATTENTION
    names: dict[str, None] = {}
    without_router = False
    for group in groups:
        if group == "mla" and not has_mla:
            raise ConfigError(
                f"trainer.modules asks for 'mla', but {loaded.info.name} ({loaded.info.architecture}) has no "
                "multi-head latent attention; use 'attention' or 'auto'"
            )
        if group == "router" and ROUTER not in here:
            raise ConfigError(_no_router(loaded, layer))
        if group in ("auto", "attention", "mla"):
            found = [name for name in attention if name in here]
            if not found:
                raise ConfigError(f"layer {layer} of {loaded.info.name} has none of {', '.join(attention)}")
            if group == "auto" and ROUTER in here:
                found.append(ROUTER)
            without_router |= group == "auto" and ROUTER not in here and _has_routers(loaded)
        elif group == "router":
            found = [ROUTER]
        elif group == "mlp":
            found = [name for name in MLP if name in here]
        else:
            found = [group]
        missing = [name for name in found if not _has_matrix(here.get(name))]
        if missing or not found:
            have = ", ".join(name for name, module in here.items() if _has_matrix(module))
            raise ConfigError(
                f"trainer.modules: layer {layer} of {loaded.info.name} has no weight matrix '{group}'; it has {have}"
            )
        names |= dict.fromkeys(found)
    return list(names), without_router


def _has_matrix(module: Any) -> bool:
    """Whether a module holds a two-dimensional `weight` of its own."""
    weight = getattr(module, "_parameters", {}).get("weight")
    return weight is not None and weight.dim() == 2


def _has_routers(loaded: LoadedTarget) -> bool:
    return any(ROUTER in dict(layer.named_modules()) for layer in loaded.layers)


def _no_router(loaded: LoadedTarget, layer: int) -> str:
    if not _has_routers(loaded):
        return (
            f"trainer.modules asks for 'router', but {loaded.info.name} ({loaded.info.architecture}) is not a "
            "mixture-of-experts model with its router at mlp.gate; use 'attention' or 'auto'"
        )
    return (
        f"trainer.modules asks for 'router', but layer {layer} of {loaded.info.name} is dense and has none; leave the "
        "layer out of the candidates, or use 'auto', which trains routers where there are any"
    )


def lora_config(placement: Placement, *, rank: int, alpha: int) -> LoraConfig:
    """PEFT's configuration for exactly these weights, without dropout (routers allow none) and without biases."""
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(placement.modules),
        target_parameters=list(placement.parameters) or None,
    )
