"""The export stage: the tuned model for llama.cpp, with its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import Adapter, BaseModel, Export, LayerSelection, Traces
from m3i.interfaces import ExportRequest, Tick
from m3i.stages.libraries import TORCH

if TYPE_CHECKING:
    from m3i.stages.context import RunContext


def run(context: RunContext, base: BaseModel, adapter: Adapter, selection: LayerSelection, traces: Traces) -> Export:
    """Returns the tuned model for llama.cpp, with the certificate that the update arrived."""
    exporter = context.experiment.exporter

    def work(folder: Path, tick: Tick) -> Export:
        return exporter.export(
            ExportRequest(
                target=context.session,
                base=base,
                adapter=adapter,
                selection=selection,
                probes=traces.traces,
                folder=folder,
                tick=tick,
            )
        )

    return context.make(
        Export,
        "export",
        work,
        component=("exporter", exporter),
        inputs={"target": context.target_id, "base": base.id, "adapter": adapter.id},
        libraries=TORCH,
        made=_live,
    )


def _live(export: Export) -> str:
    certificate = export.certificate
    joint = f", joint error {certificate.together.relative_error:.1e}"
    return f"{certificate.live_share:.1%} of the adapter live" + (" (vacuous: sham)" if certificate.vacuous else joint)
