"""The exporter `gguf_adapter`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from m3i import Export, ExportRequest, TensorLiveness

from .adapter import AdapterFile
from .exporting import GGUFExporter, mapping
from .layout import GGUFFile
from .updates import Update


@dataclass(kw_only=True)
class GGUFAdapter(GGUFExporter):
    """A small llama.cpp LoRA file over the base GGUF; on DeepSeek-V2 llama.cpp silently ignores most of it.

    The certificate finds the tensors that llama.cpp ignores. Unless `allow_dead` is set, the run stops there; with it,
    the file holds only the live tensors and the report states their share.
    """

    def export(self, request: ExportRequest) -> Export:
        """Writes `adapter.gguf` and its certificate.

        Raises:
            DeadTensorError: llama.cpp does not apply some tensors, and allow_dead is off.
            StageError: The whole update does not make its difference, or an update is zero that should not be.
            ConfigError: Adapter, base file and architecture do not match.
        """
        updates = self.updates(request)
        base = GGUFFile(request.base.file())
        n_tensors = len(base.tensors)
        if request.selection.zero_update:
            return Export(model_path=None, adapter_path=None, certificate=self.vacuous(request, updates, n_tensors))
        architecture, config = mapping(request.target)
        path, twin_path = request.folder / "adapter.gguf", request.folder / "twin-adapter.gguf"
        carrier = AdapterCarrier(AdapterFile(base, architecture, config, updates, path), base.path, updates)

        def twin_carrier(twin: GGUFFile) -> AdapterCarrier:
            return AdapterCarrier(AdapterFile(twin, architecture, config, updates, twin_path), twin.path, updates)

        try:
            findings, in_file = self.measure(request, updates, base, carrier, twin_carrier)
        finally:
            twin_path.unlink(missing_ok=True)
        remedy = "use exporter=gguf_graft, which carries every tensor"
        certificate = self.judge(findings, in_file, (n_tensors, n_tensors), remedy)
        return Export(model_path=None, adapter_path=path.name, certificate=certificate)


class AdapterCarrier:
    """A LoRA file over the base, as the certificate sees it."""

    def __init__(self, file: AdapterFile, base: Path, updates: Mapping[str, Update]) -> None:
        self._file, self._base, self._updates = file, base, updates
        self._empty = True

    def files(self) -> tuple[Path, Path | None]:
        """The base, and the adapter once it holds an update."""
        return self._base, None if self._empty else self._file.path

    def lay(self, factors: Mapping[str, float]) -> None:
        """Rewrites the adapter."""
        self._empty = not any(factors.values())
        if not self._empty:
            self._file.lay(factors)

    def obstacle(self, name: str) -> str:
        """Why the file cannot hold a tensor that the base file stores in another form."""
        return self._file.obstacle(name)

    def describe(self, name: str) -> TensorLiveness:
        """Describes a pair of F32 factors."""
        return TensorLiveness(
            name=name,
            n_trainable=self._updates[name].n_trainable,
            ggml_type="F32 factors",
            peft_norm=0.0,
            llama_norm=0.0,
            relative_error=0.0,
            live=False,
        )
