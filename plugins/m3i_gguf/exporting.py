"""What both exporters share: the base file with its parity, the certificate, and what follows from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from m3i import (
    BaseModel,
    Component,
    DeadTensorError,
    ExportCertificate,
    ExportRequest,
    FileEffect,
    StageError,
    TargetSession,
    TensorLiveness,
    Trace,
    option,
    require,
)

from .architectures import Architecture, architecture_of
from .certificate import Carrier, Findings, Runtime, certify, in_the_file, rms
from .convert import FileType, convert, tensor_types
from .layout import GGUFFile
from .probes import PeftModelProbe, pick
from .routing import flips, left_out, router_noise
from .twin import file_values, is_narrow, write_twin
from .updates import Update, live_share, read_updates

N_PARITY_PROBES = 4


class BaseType(str, Enum):
    """Type of the base file."""

    auto = "auto"
    f32 = "f32"
    f16 = "f16"
    q8_0 = "q8_0"
    q4_k_m = "q4_k_m"


LARGEST_PARITY = {"F32": 0.01, "F16": 0.1, "BF16": 0.3, "Q8_0": 0.3}
"""Most common tensor type of a base file → default bound on the parity, nats root mean square; 1.5 for coarser
types."""


@dataclass(kw_only=True)
class GGUFExporter(Component):
    """Options that both exporters share."""

    libraries: ClassVar[tuple[str, ...]] = ("gguf", "llama-cpp-python", "peft", "torch", "transformers")

    base_type: BaseType = BaseType.auto
    """Type of the base GGUF's matrices: `f32`, `f16`, `q8_0`, `q4_k_m`, or `auto`: the target's own GGUF if it has one,
    else F32 for float32 weights and F16 for half-precision ones."""
    max_parity: float = 0.0
    """Largest accepted root mean square of llama.cpp − transformers on the base model, nats; above it the export stops.
    0 takes a bound by the base's type (0.01 for F32, 0.1 for F16, 0.3 for Q8_0, 1.5 for coarser ones)."""
    max_relative_error: float = 0.1
    """Bound on |d_llama − d_peft| / |d_peft|, for each trained tensor alone and for all together."""
    n_probes: int = 4
    """Traces on whose completion tokens the certificate is measured."""
    allow_dead: bool = False
    """Continue with the live tensors if some are dead; the certificate names the dead ones and the share evaluated."""
    twin: bool = True
    """Measure a base that is not F32 on its F32 twin: the same values, without the narrow kernels' rounding of
    activations, which hides small updates. Temporarily takes the disk space of an F32 file."""
    n_threads: int = option(1, result_free=True)
    """llama.cpp threads for the measurements; more can be slower on a shared machine."""

    def __post_init__(self) -> None:
        require(self.max_parity >= 0, "max_parity", self.max_parity, "a number ≥ 0 (0 for the default of the type)")
        require(0 < self.max_relative_error < 1, "max_relative_error", self.max_relative_error, "between 0 and 1")
        require(self.n_probes >= 1, "n_probes", self.n_probes, "an integer ≥ 1")
        require(self.n_threads >= 1, "n_threads", self.n_threads, "an integer ≥ 1")

    def base_fields(self) -> Mapping[str, Any]:
        """The options that change the base file, or whether it is accepted."""
        return {"base_type": self.base_type.value, "max_parity": self.max_parity}

    def export_base(self, target: TargetSession, probes: Sequence[Trace], folder: Path) -> BaseModel:
        """Converts the target, or points to its own GGUF, and measures its parity with transformers.

        Raises:
            ConfigError: The architecture cannot be exported; nothing was computed.
            StageError: llama.cpp and transformers disagree on the base by more than the bound.
        """
        own = target.info.files.get("gguf")
        if own is not None and self.base_type is BaseType.auto:
            path = Path(own)
            name = str(path.resolve())
        else:
            architecture_of(target.info.architecture, target.info.config)
            path, name = folder / "base.gguf", "base.gguf"
            convert(target.loaded, path, self._file_type(target), n_threads=self.n_threads)
        types = tensor_types(path)
        parity = self._parity(target, probes, path)
        bound = self.max_parity or LARGEST_PARITY.get(max(types, key=lambda kind: types[kind]), 1.5)
        if parity["rms"] > bound:
            raise StageError(
                f"llama.cpp and transformers disagree on the base model {path.name} by {parity['rms']:.3g} nats (root "
                f"mean square over {parity['n_tokens']:.0f} tokens); the bound is {bound:g}. Use a finer base "
                "(exporter.base_type=f16), or raise exporter.max_parity if this is expected"
            )
        return BaseModel(path=name, sha256=_sha256(path), tensor_types=types, parity=parity)

    def _file_type(self, target: TargetSession) -> FileType:
        if self.base_type is not BaseType.auto:
            return FileType(self.base_type.value)
        return FileType.F32 if str(target.loaded.model.dtype) == "torch.float32" else FileType.F16

    def _parity(self, target: TargetSession, traces: Sequence[Trace], path: Path) -> dict[str, float]:
        probes = pick(traces, N_PARITY_PROBES)
        peft = PeftModelProbe(target.loaded, None)
        chosen_NK = peft.choose(probes)
        reference = peft.read(probes, chosen_NK)
        runtime = Runtime(max(len(probe.ids) for probe in probes), self.n_threads)
        try:
            measured = runtime.read((path, None), probes, chosen_NK)
        finally:
            runtime.close()
        noise = router_noise(reference.routers_MNE, measured.routers_MNE)
        flips_N = flips(reference.routers_MNE, measured.routers_MNE, peft.n_used, noise)
        kept_N = ~left_out(flips_N, [len(probe.next_ids) for probe in probes])
        off_NK = (measured.logp_NK - reference.logp_NK)[kept_N]
        if not off_NK.size:
            raise StageError(f"routers resolve near-ties differently in llama.cpp at all {len(flips_N)} probe tokens")
        return {
            "rms": rms(off_NK),
            "mean_abs": float(np.abs(off_NK).mean()),
            "max_abs": float(np.abs(off_NK).max()),
            "n_tokens": float(len(flips_N)),
            "n_chosen": float(chosen_NK.shape[1]),
            "routing_flips": float(flips_N.sum()),
            "router_noise": noise,
        }

    def updates(self, request: ExportRequest) -> dict[str, Update]:
        """Returns the adapter's updates. Raises StageError unless they are zero exactly when the selection says so."""
        updates = read_updates(request.adapter.folder)
        if not request.selection.zero_update and all(update.is_zero for update in updates.values()):
            raise StageError("every update of the adapter is exactly zero although it was trained; nothing to export")
        if request.selection.zero_update and not all(update.is_zero for update in updates.values()):
            raise StageError("the selection asks for a zero update, but the adapter's update is not zero")
        return updates

    def measure(
        self,
        request: ExportRequest,
        updates: Mapping[str, Update],
        base: GGUFFile,
        carrier: Carrier,
        twin_carrier: Callable[[GGUFFile], Carrier],
    ) -> tuple[Findings, FileEffect | None]:
        """Returns the certificate's figures and the whole update's effect in narrow kernels; the carrier keeps the live
        tensors.

        Args:
            request: The export.
            updates: Parameter → update.
            base: The base file.
            carrier: The export under test.
            twin_carrier: Makes the same export over the base's F32 twin (m3i_gguf.twin).
        """
        architecture, config = mapping(request.target)
        probes = pick(request.probes, self.n_probes)
        bounds: dict[str, Any] = {"max_relative_error": self.max_relative_error, "n_threads": self.n_threads}
        with ExitStack() as stack:
            if is_narrow(base):
                stack.enter_context(file_values(request.target.loaded, architecture, config, base))
            peft = stack.enter_context(PeftModelProbe(request.target.loaded, request.adapter.folder).opened())
            if not (is_narrow(base) and self.twin):
                findings = certify(peft, updates, carrier, base.path, probes, **bounds, tick=request.tick)
                carrier.lay({t.name: 1.0 for t in findings.tensors if t.live})
                return findings, None
            path = request.folder / "twin.gguf"
            stack.callback(path.unlink, missing_ok=True)
            twin = write_twin(base, path)
            findings = certify(peft, updates, twin_carrier(twin), path, probes, **bounds, tick=request.tick)
            live = [t.name for t in findings.tensors if t.live]
            if not live:
                return findings, None
            rounded = in_the_file(peft, carrier, base.path, live, probes, n_threads=self.n_threads)
            return findings, FileEffect(
                peft_norm=rounded.peft_norm, llama_norm=rounded.llama_norm, relative_error=rounded.relative_error
            )

    def judge(
        self, findings: Findings, in_file: FileEffect | None, identical: tuple[int, int], remedy: str
    ) -> ExportCertificate:
        """Returns the certificate.

        Raises:
            DeadTensorError: Trained tensors make no difference, or a different one, and allow_dead is off.
            StageError: Together, the tensors do not make the difference that they make in PEFT.
        """
        trained = {t.name: t.n_trainable for t in findings.tensors}
        live = {t.name for t in findings.tensors if t.live}
        dead = [t for t in findings.tensors if not t.live]
        share = live_share(trained, live)
        notes = []
        if in_file is not None:
            notes.append(
                "measured on the base's F32 twin, the same values in exact arithmetic; in the file itself, whose "
                f"kernels round activations, the update moves log-probabilities by {in_file.llama_norm:.2g} nats, "
                f"{in_file.relative_error:.0%} off PEFT's {in_file.peft_norm:.2g}"
            )
        if dead:
            notes.append(
                f"{len(dead)} of {len(trained)} trained tensors are dead; {share:.1%} of the adapter is evaluated"
            )
            if not self.allow_dead or not live:
                raise DeadTensorError(_dead_message(dead, trained, share, self.max_relative_error, remedy))
        if not findings.together.live:
            raise StageError(
                f"the export does not carry the adapter: together its tensors move the log-probabilities by "
                f"{findings.together.llama_norm:.3g} nats in llama.cpp and {findings.together.peft_norm:.3g} in PEFT, "
                f"relative error {findings.together.relative_error:.1%}, bound {self.max_relative_error:.0%} "
                f"(base parity {findings.base_parity_rms:.2g}); {remedy}"
            )
        return ExportCertificate(
            tensors=findings.tensors,
            together=findings.together,
            n_probe_tokens=findings.n_probe_tokens,
            base_parity_rms=findings.base_parity_rms,
            routing_flips=findings.routing_flips,
            live_share=share,
            identical_tensors=identical[0],
            n_tensors=identical[1],
            note="; ".join(notes),
            in_file=in_file,
        )

    def vacuous(self, request: ExportRequest, updates: Mapping[str, Update], n_tensors: int) -> ExportCertificate:
        """Returns the certificate of a zero update: the tuned model is the base, and nothing is proved."""
        tensors = tuple(
            _untouched(name, update.n_trainable, "zero update by construction") for name, update in updates.items()
        )
        return ExportCertificate(
            tensors=tensors,
            together=_untouched("all together", sum(t.n_trainable for t in tensors), "zero update by construction"),
            n_probe_tokens=0,
            base_parity_rms=request.base.parity["rms"],
            routing_flips=0,
            live_share=0.0,
            identical_tensors=n_tensors,
            n_tensors=n_tensors,
            vacuous=True,
            note="sham arm: the tuned file equals the base byte for byte; nothing was measured, nothing is proved",
        )


def mapping(target: TargetSession) -> tuple[Architecture, dict[str, Any]]:
    """The target's GGUF mapping and its configuration."""
    config = target.info.config or target.loaded.model.config.to_dict()
    return architecture_of(target.info.architecture, config), config


def _untouched(name: str, n_trainable: int, note: str) -> TensorLiveness:
    return TensorLiveness(
        name=name,
        n_trainable=n_trainable,
        ggml_type="",
        peft_norm=0.0,
        llama_norm=0.0,
        relative_error=0.0,
        live=False,
        note=note,
    )


def _dead_message(
    dead: Sequence[TensorLiveness], trained: Mapping[str, int], live: float, bound: float, remedy: str
) -> str:
    total = sum(trained.values())
    lines = [
        f"  {t.name}: {t.n_trainable / total:.1%} of the adapter; {t.llama_norm:.2g} nats in llama.cpp, "
        f"{t.peft_norm:.2g} in PEFT, relative error {t.relative_error:.1%}" + (f" ({t.note})" if t.note else "")
        for t in dead
    ]
    return (
        f"{len(dead)} of {len(trained)} trained tensors do not make the difference in llama.cpp that they make in "
        f"PEFT (bound {bound:.0%}); {live:.1%} of the adapter would be evaluated:\n"
        + "\n".join(lines)
        + f"\n{remedy}, or set exporter.allow_dead=true to evaluate only the live part"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
