"""The exporter `gguf_graft`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from m3i import Export, ExportRequest, TensorLiveness

from .exporting import GGUFExporter, mapping
from .graft import Graft, GraftType
from .layout import GGUFFile, copy_whole, count_identical
from .updates import Update


@dataclass(kw_only=True)
class GGUFGraft(GGUFExporter):
    """A complete tuned GGUF: the base file with updates added to the trained tensors and every other byte unchanged.

    Every module of every supported architecture is covered: kv_b as llama.cpp's k_b and v_b, routers, and Llama's q and
    k with their rows in llama.cpp's order. The certificate names each grafted tensor's type and says how much of its
    update is smaller than half a step of that type.
    """

    graft_type: GraftType = GraftType.f32
    """Type of the grafted tensors: `f32` (no update is too small for it), `f16`, or `keep` for the base tensor's own
    type (F16 if that cannot be written). Router weights are always F32."""

    def export(self, request: ExportRequest) -> Export:
        """Writes `tuned.gguf` and its certificate.

        Raises:
            DeadTensorError: Tensors do not make their difference, and allow_dead is off.
            StageError: The whole update does not make its difference, or an update is zero that should not be.
            ConfigError: Adapter, base file and architecture do not match.
        """
        updates = self.updates(request)
        base, tuned = GGUFFile(request.base.file()), request.folder / "tuned.gguf"
        if request.selection.zero_update:
            copy_whole(base.path, tuned)
            certificate = self.vacuous(request, updates, len(base.tensors))
            return Export(model_path=tuned.name, adapter_path=None, certificate=certificate)
        architecture, config = mapping(request.target)
        graft = Graft(base, architecture, config, updates, tuned, self.graft_type)

        def twin_carrier(twin: GGUFFile) -> GraftCarrier:
            exact = Graft(base, architecture, config, updates, twin.path, GraftType.f32, twin_of=graft)
            return GraftCarrier(exact, updates, described=graft)

        carrier = GraftCarrier(graft, updates, described=graft)
        findings, in_file = self.measure(request, updates, base, carrier, twin_carrier)
        remedy = "check the architecture's mapping, or use a wider exporter.graft_type or a finer exporter.base_type"
        certificate = self.judge(findings, in_file, count_identical(base, tuned), remedy)
        return Export(model_path=tuned.name, adapter_path=None, certificate=certificate)


class GraftCarrier:
    """A graft as the certificate sees it."""

    def __init__(self, graft: Graft, updates: Mapping[str, Update], *, described: Graft) -> None:
        self._graft, self._updates, self._described = graft, updates, described

    def files(self) -> tuple[Path, None]:
        """The grafted file, no adapter."""
        return self._graft.path, None

    def lay(self, factors: Mapping[str, float]) -> None:
        """Rewrites the trained tensors."""
        self._graft.lay(factors)

    def obstacle(self, name: str) -> str:
        """A graft holds every tensor."""
        return ""

    def describe(self, name: str) -> TensorLiveness:
        """Describes the tensor's types and what they cost."""
        loss = self._described.loss(name)
        notes = []
        if loss.erased_share >= 0.001:
            notes.append(f"{loss.erased_share:.1%} of the update is under half a step of its type")
        if loss.relative_error >= 0.001:
            notes.append(f"stored {loss.relative_error:.1%} off")
        return TensorLiveness(
            name=name,
            n_trainable=self._updates[name].n_trainable,
            ggml_type=self._described.types(name),
            peft_norm=0.0,
            llama_norm=0.0,
            relative_error=0.0,
            live=False,
            note=", ".join(notes),
            erased_share=loss.erased_share,
            storage_error=loss.relative_error,
        )
