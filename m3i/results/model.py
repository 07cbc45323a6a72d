"""The model's side of the result: parameters, layers, training, certificates. JSON values only."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from m3i.artifacts import (
    Adapter,
    BaseModel,
    Export,
    LayerScores,
    LayerSelection,
    PreferencePairs,
    Problem,
    TargetInfo,
)
from m3i.audits.agreement import correct_overlaps, score_agreement


def finite(value: float | None) -> float | None:
    """The value, or None if it is not finite: JSON has no NaN."""
    return float(value) if value is not None and math.isfinite(value) else None


def target_section(target: TargetInfo) -> dict[str, Any]:
    """Facts about the target, without its full configuration and local paths."""
    section = asdict(target)
    del section["config"], section["files"]
    return section


def parameters_section(target: TargetInfo, adapter: Adapter) -> dict[str, Any]:
    """Parameters on disk, active per token and trained, and those of the weights that the trained ones act on."""
    by_module: dict[str, int] = defaultdict(int)
    for tensor in adapter.certificate.tensors:
        by_module[module_name(tensor.name)] += tensor.n_trainable
    return {
        "on_disk": target.n_parameters,
        "active": target.n_active,
        "trained": adapter.certificate.n_trainable,
        "steered": sum(math.prod(t.shape) for t in adapter.certificate.tensors),
        "trained_by_module": dict(by_module),
    }


def module_name(tensor: str) -> str:
    """`model.layers.6.self_attn.o_proj.weight` → `o_proj`; the router's `mlp.gate` is kept whole."""
    parts = [p for p in tensor.split(".") if p != "weight"]
    return ".".join(parts[-2:]) if parts[-1] == "gate" else parts[-1]


def layers_section(target: TargetInfo, scores: Mapping[str, LayerScores], selection: LayerSelection) -> dict[str, Any]:
    """Every layer's scores per attributor and observer, and the selected layers."""
    attributors = {alias: _scores(artifact, selection) for alias, artifact in scores.items()}
    correct_overlaps([row for attributor in attributors.values() for row in attributor["agreement"]])
    return {
        "n": target.n_layers,
        "dense": list(target.dense_layers),
        "moe": target.n_experts > 0,
        "candidates": list(selection.candidates),
        "selected": list(selection.layers),
        "reason": selection.reason,
        "zero_update": selection.zero_update,
        "attributors": attributors,
    }


def _scores(artifact: LayerScores, selection: LayerSelection) -> dict[str, Any]:
    rows = [
        {
            "observer": row.observer,
            "scores": [finite(x) for x in row.scores],
            "low": [finite(x) for x in row.low],
            "high": [finite(x) for x in row.high],
            "n_traces": row.n_traces,
        }
        for row in artifact.rows
    ]
    joint = artifact.joint().scores
    order = sorted(selection.candidates, key=lambda layer: (-joint[layer], layer))
    k = min(len(selection.layers), len(selection.candidates))
    return {
        "attributor": artifact.attributor,
        "rows": rows,
        "order": order,
        "left_out": dict(artifact.left_out),
        "agreement": score_agreement(artifact, k, selection.candidates) if k else [],
    }


def training_section(pairs: PreferencePairs, adapter: Adapter, train: Mapping[str, Problem]) -> dict[str, Any]:
    """Preference pairs and the training curve, with the first pairs in full as examples."""
    origins: dict[str, int] = defaultdict(int)
    for pair in pairs.pairs:
        origins[pair.origin.value] += 1
    examples = [
        {
            "prompt": train[pair.problem_id].prompt if pair.problem_id in train else "",
            "chosen": pair.chosen_text,
            "rejected": pair.rejected_text,
            "origin": pair.origin.value,
        }
        for pair in pairs.pairs[:3]
    ]
    return {
        "n_pairs": len(pairs.pairs),
        "n_problems": len({pair.problem_id for pair in pairs.pairs}),
        "origins": dict(origins),
        "counts": dict(pairs.counts),
        "lengths": {name: finite(value) for name, value in pairs.lengths.items()},
        "examples": examples,
        "log": [{name: finite(value) for name, value in row.items()} for row in adapter.log],
        "time_s": adapter.train_time_s,
        "n_tokens": adapter.n_tokens,
    }


def certificates_section(adapter: Adapter, export: Export) -> dict[str, Any]:
    """For each tensor, what moved in training and whether it is live in llama.cpp."""
    training, exported = asdict(adapter.certificate), asdict(export.certificate)
    in_file = [exported["in_file"]] if exported["in_file"] else []
    for tensor in [*training["tensors"], *exported["tensors"], exported["together"], *in_file]:
        for name, value in tensor.items():
            if isinstance(value, float):
                tensor[name] = finite(value)
    exported["base_parity_rms"] = finite(exported["base_parity_rms"])
    exported["how"] = "graft" if export.adapter_path is None else "adapter"
    training["tensors"] = [t | {"shape": list(t["shape"])} for t in training["tensors"]]
    exported["tensors"], training["tensors"] = list(exported["tensors"]), list(training["tensors"])
    return {"training": training, "export": exported}


def base_section(base: BaseModel) -> dict[str, Any]:
    """The base GGUF: its tensor types and its parity with transformers."""
    return {
        "sha256": base.sha256,
        "tensor_types": dict(base.tensor_types),
        "parity": {name: finite(value) for name, value in base.parity.items()},
    }
