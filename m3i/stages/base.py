"""The base stage: the base model as GGUF, made once for all arms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import BaseModel, Traces
from m3i.component import plain
from m3i.interfaces import Tick
from m3i.stages.libraries import TORCH

if TYPE_CHECKING:
    from m3i.stages.context import RunContext


def run(context: RunContext, traces: Traces) -> BaseModel:
    """Returns the base model as GGUF, with its parity to transformers; all arms share it."""
    exporter = context.experiment.exporter

    def work(folder: Path, tick: Tick) -> BaseModel:
        return exporter.export_base(context.session, traces.traces, folder)

    entry = context.registry.entry_of("exporter", exporter)
    return context.make(
        BaseModel,
        "base",
        work,
        # Not the whole component: exporters that agree on these options share the file.
        settings={
            "exporter": {"distribution": entry.distribution, "version": entry.version, "source": entry.source_hash()},
            "options": plain(dict(exporter.base_fields())),
        },
        inputs={"target": context.target_id, "traces": traces.id},
        libraries=(*TORCH, *type(exporter).libraries),
        made=lambda a: "parity " + ", ".join(f"{k} {v:.3g}" for k, v in list(a.parity.items())[:2]),
    )
