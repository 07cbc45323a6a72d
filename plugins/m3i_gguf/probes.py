"""The probe: log-probabilities of chosen tokens at the same positions, in transformers with PEFT and in llama.cpp.

Letters: N probe tokens (predicted completion tokens of all probe traces), K tokens chosen at each (the one that came
next and the base model's most likely others), M layers with a router, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m3i import LoadedTarget, StageError, Trace
from m3i.models.llamacpp.session import LlamaSession

N_CHOSEN = 8
"""Tokens compared at each position: a single number per position says little where the model is sure of itself."""


@dataclass(frozen=True)
class Reading:
    """One model's output on all probes."""

    logp_NK: np.ndarray
    routers_MNE: np.ndarray
    """Router logits; no rows for a dense model."""


@dataclass(frozen=True)
class Probe:
    """One sequence."""

    ids: tuple[int, ...]
    start: int
    """Position of the first prediction: the last token of the prompt."""
    next_ids: tuple[int, ...]
    """The actual next token at each position from `start` on."""


def pick(traces: Sequence[Trace], n_probes: int) -> list[Probe]:
    """Picks n_probes whole traces, evenly spaced over those given. Raises StageError if none is usable."""
    usable = [trace for trace in traces if trace.completion_ids and trace.prompt_ids]
    if not usable:
        raise StageError("no trace has a prompt and a completion, so there is nothing to compare the two runtimes on")
    places = np.unique(np.linspace(0, len(usable) - 1, min(n_probes, len(usable))).round().astype(int))
    return [
        Probe(trace.prompt_ids + trace.completion_ids[:-1], len(trace.prompt_ids) - 1, trace.completion_ids)
        for trace in (usable[place] for place in places)
    ]


class PeftModelProbe:
    """The target with an adapter whose tensors can be scaled one by one.

    Args:
        loaded: The target; it is wrapped while the context is open and restored afterwards.
        adapter: PEFT's folder, or None for the base model alone.
    """

    def __init__(self, loaded: LoadedTarget, adapter: Path | None) -> None:
        self._loaded = loaded
        self._adapter = adapter
        self._layers: dict[str, tuple[Any, float]] = {}
        self.n_used = loaded.info.n_experts_active
        """Experts that a router chooses per token."""

    @contextmanager
    def opened(self) -> Iterator[PeftModelProbe]:
        """Wraps the model in PEFT, and always unwraps it at the end."""
        if self._adapter is None:
            yield self
            return
        from peft import PeftModel
        from peft.tuners.lora import LoraLayer

        model = self._loaded.model
        wanted = {name: p.requires_grad for name, p in model.named_parameters()}
        wrapped = PeftModel.from_pretrained(model, str(self._adapter))
        try:
            wrapped.eval()
            for name, module in wrapped.named_modules():
                if isinstance(module, LoraLayer):
                    parameter = name.removeprefix("base_model.model.") + ".weight"
                    self._layers[parameter] = (module, float(module.scaling["default"]))
            yield self
        finally:
            self.lay(dict.fromkeys(self._layers, 1.0))
            self._layers = {}
            wrapped.unload()
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(wanted[name])

    def lay(self, factors: Mapping[str, float]) -> None:
        """Makes the model use factor · update in every trained tensor; the factor is 0 for those not named."""
        for name, (module, scaling) in self._layers.items():
            module.scaling["default"] = scaling * factors.get(name, 0.0)

    def parameters(self) -> set[str]:
        """Parameters that PEFT adapts."""
        return set(self._layers)

    def read(self, probes: Sequence[Probe], chosen_NK: np.ndarray) -> Reading:
        """Returns the log-probabilities of the chosen tokens."""
        logp, routers, done = [], [], 0
        for probe in probes:
            logp_TV, routers_MTE = self._forward(probe)
            logp.append(np.take_along_axis(logp_TV, chosen_NK[done : done + len(logp_TV)], axis=1))
            routers.append(routers_MTE)
            done += len(logp_TV)
        return Reading(np.concatenate(logp).astype(np.float64), np.concatenate(routers, axis=1))

    def choose(self, probes: Sequence[Probe]) -> np.ndarray:
        """int64 [N, K]: the actual next token and the most likely others."""
        rows = []
        for probe in probes:
            logp_TV, _ = self._forward(probe)
            np.put_along_axis(logp_TV, np.asarray(probe.next_ids)[:, None], np.inf, axis=1)
            n_chosen = min(N_CHOSEN, logp_TV.shape[1])
            rows.append(np.argsort(-logp_TV, axis=1, kind="stable")[:, :n_chosen])
        return np.concatenate(rows)

    def _forward(self, probe: Probe) -> tuple[np.ndarray, np.ndarray]:
        import torch

        model = self._loaded.model
        seen: dict[int, np.ndarray] = {}
        hooks = [gate.register_forward_hook(_remember(seen, layer)) for layer, gate in gates(self._loaded).items()]
        try:
            with torch.no_grad():
                ids = torch.tensor([probe.ids], device=model.device)
                logits_TV = model(input_ids=ids, use_cache=False).logits[0, probe.start :].double()
                logp_TV = torch.log_softmax(logits_TV, dim=-1).cpu().numpy()
        finally:
            for hook in hooks:
                hook.remove()
        layers = [seen[layer][probe.start :] for layer in sorted(seen)]
        return logp_TV, np.stack(layers) if layers else np.zeros((0, len(logp_TV), 0), dtype=np.float32)


def gates(loaded: LoadedTarget) -> dict[int, Any]:
    """Layer → router module, whose forward returns (logits, weights, experts)."""
    info = loaded.info
    if not info.n_experts:
        return {}
    modules = dict(loaded.model.named_modules())
    found = {}
    for layer in range(info.n_layers):
        if layer not in info.dense_layers:
            name = f"model.layers.{layer}.mlp.gate"
            # PEFT's wrapper of a parameter calls the router itself, under this name
            found[layer] = modules[name + ".base_layer"] if name + ".base_layer" in modules else modules[name]
    return found


def _remember(seen: dict[int, np.ndarray], layer: int) -> Any:
    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        seen[layer] = output[0].detach().float().cpu().numpy()

    return hook


def read_llama(session: LlamaSession, probes: Sequence[Probe], chosen_NK: np.ndarray) -> Reading:
    """Returns the same log-probabilities from llama.cpp."""
    logp, routers, done = [], [], 0
    for probe in probes:
        n = len(probe.ids) - probe.start
        measured = session.measure(probe.ids, start=probe.start, chosen_TK=chosen_NK[done : done + n])
        logp.append(measured.logprobs)
        routers.append(measured.routers_MTE)
        done += n
    return Reading(np.concatenate(logp).astype(np.float64), np.concatenate(routers, axis=1))
