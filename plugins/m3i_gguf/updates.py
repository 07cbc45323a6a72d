"""The update that a PEFT adapter makes, read from its own files: one low-rank pair per parameter."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m3i import ConfigError, InputError

PREFIX = "base_model.model."


@dataclass(frozen=True)
class Update:
    """One trained tensor: W becomes W + scaling · B A."""

    parameter: str
    """Name in the base model, e.g. `model.layers.6.self_attn.o_proj.weight`."""
    a: np.ndarray
    """float32 [r, d_in]."""
    b: np.ndarray
    """float32 [d_out, r]."""
    scaling: float
    """alpha / r, or alpha / sqrt(r) with rank-stabilised LoRA. Source: Hu et al. 2021, section 4.1."""

    @property
    def n_trainable(self) -> int:
        """Number of parameters of A and B."""
        return self.a.size + self.b.size

    @property
    def is_zero(self) -> bool:
        """Whether B A is exactly zero."""
        return not (self.a.any() and self.b.any() and self.scaling)

    def delta(self) -> np.ndarray:
        """Scaling · B A in float32, [d_out, d_in]; the product is taken in float64."""
        return np.asarray(self.scaling * (self.b.astype(np.float64) @ self.a.astype(np.float64)), dtype=np.float32)


def read_updates(folder: Path) -> dict[str, Update]:
    """Returns parameter → update, sorted by name, from `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        InputError: A file is missing.
        ConfigError: The adapter does more than add scaling · B A to matrices (DoRA, biases, saved modules, ...).
    """
    from safetensors import safe_open

    config_path, weights_path = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for path in (config_path, weights_path):
        if not path.is_file():
            raise InputError(f"{path} does not exist; expected an adapter saved by PEFT")
    config = json.loads(config_path.read_text())
    _check_plain_lora(config)
    with safe_open(weights_path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118
    updates: dict[str, Update] = {}
    for name in sorted(tensors):
        if name.endswith(".lora_B.weight"):
            continue
        if not (name.startswith(PREFIX) and name.endswith(".lora_A.weight")):
            raise ConfigError(
                f"the adapter holds {name}, which is not a low-rank factor; only plain LoRA can be exported"
            )
        module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        a, b = tensors[name], tensors[name.replace(".lora_A.", ".lora_B.")]
        if a.shape[0] != b.shape[1]:
            raise ConfigError(f"{module}: A is {a.shape}, B is {b.shape}; trained expert stacks cannot be exported")
        updates[module + ".weight"] = Update(module + ".weight", a, b, _scaling(config, module, a.shape[0]))
    if not updates:
        raise ConfigError(f"{weights_path} holds no trained tensor")
    return updates


def _check_plain_lora(config: dict[str, Any]) -> None:
    expected = {"peft_type": "LORA", "bias": "none"}
    off = ("use_dora", "lora_bias", "fan_in_fan_out", "modules_to_save", "trainable_token_indices", "layer_replication")
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise ConfigError(f"the adapter has {key} = {config[key]!r}: expected {value!r} to export it")
    for key in off:
        if config.get(key):
            raise ConfigError(f"the adapter has {key} = {config[key]!r}: only plain LoRA can be exported")


def _scaling(config: dict[str, Any], module: str, rank: int) -> float:
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def live_share(n_trainable: dict[str, int], live: set[str]) -> float:
    """Share of the trained parameters that lie in live tensors."""
    return sum(n for name, n in n_trainable.items() if name in live) / sum(n_trainable.values())
