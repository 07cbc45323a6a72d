"""The certificate: does every trained tensor make the difference in llama.cpp that it makes in PEFT?

Only *differences* are compared, tuned minus base in each runtime: re-quantisation alone moves logits, so a changed
output proves nothing. Each tensor is measured alone, then all together. An update too small to stand out from the
measured base parity is multiplied by a power of two for its measurement. Probe tokens at which a router resolves a
near-tie differently in the two runtimes (read from both runtimes' own graphs; m3i_gguf.routing) are left out and
counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from m3i import StageError, TensorLiveness, Tick, no_tick
from m3i.models.llamacpp.session import LlamaCrashed, LlamaFailed, LlamaSession

from .probes import PeftModelProbe, Probe, Reading, read_llama
from .routing import flips, left_out, router_noise
from .updates import Update

SIGNAL_OVER_PARITY = 30.0
"""An update's effect must be this many times the base parity before its relative error is judged: even if all parity
noise entered the difference, it would then be 3 % of it."""
SMALLEST_SIGNAL, LARGEST_SIGNAL = 1e-4, 0.5
"""Nats, root mean square. Float32 arithmetic is accurate to about 1e-6; beyond half a nat the model is a different
one."""
LARGEST_FACTOR = 2.0**30
LARGEST_STEP, SATURATED = 8.0, 2.0
"""An update is multiplied by at most 8 at a time; when that does not even double its effect, it has saturated."""
FEWEST_TOKENS = 8
"""Probe tokens that must be left after routing flips are removed."""


class Carrier(Protocol):
    """A file that holds chosen multiples of the updates."""

    def files(self) -> tuple[Path, Path | None]:
        """Returns the model to load and the adapter on top of it."""

    def lay(self, factors: Mapping[str, float]) -> None:
        """Makes the file hold factor · update for the named parameters, and no other update."""

    def obstacle(self, name: str) -> str:
        """Why the file cannot hold this update; empty if it can."""

    def describe(self, name: str) -> TensorLiveness:
        """The tensor's entry, before any measurement."""


class Runtime:
    """llama.cpp in a process that is restarted after a crash."""

    def __init__(self, n_ctx: int, n_threads: int) -> None:
        self._n_ctx, self._n_threads = n_ctx, n_threads
        self._session: LlamaSession | None = None

    def read(self, files: tuple[Path, Path | None], probes: Sequence[Probe], chosen_NK: np.ndarray) -> Reading:
        """Reads a model on the probes. Raises LlamaCrashed or LlamaFailed; the next call works again."""
        model, adapter = files
        try:
            if self._session is None:
                session = LlamaSession(
                    model, adapter=adapter, trace_routing=True, n_ctx=self._n_ctx, n_threads=self._n_threads
                )
                self._session = session.__enter__()
            else:
                self._session.load(model, adapter)
            return read_llama(self._session, probes, chosen_NK)
        except (LlamaCrashed, LlamaFailed):
            self.close()
            raise

    def close(self) -> None:
        """Ends the process."""
        if self._session is not None:
            self._session.close()
            self._session = None


@dataclass(frozen=True)
class Difference:
    """Tuned minus base in both runtimes, on the tokens without routing flips."""

    peft_norm: float
    llama_norm: float
    relative_error: float
    n_flips: int


@dataclass(frozen=True)
class Pair:
    """One model read in both runtimes."""

    peft: Reading
    llama: Reading


def difference(tuned: Pair, base: Pair, lengths: Sequence[int], n_used: int, noise: float) -> Difference:
    """Tuned minus base in both runtimes.

    Args:
        tuned: The tuned model.
        base: The base model.
        lengths: Tokens of each probe.
        n_used: Experts that a router chooses per token.
        noise: Router noise between the runtimes, see `router_noise`.

    Raises:
        StageError: Too few tokens are left after routing flips are removed.
    """
    flips_N = np.zeros(len(base.peft.logp_NK), dtype=bool)
    for pair in (tuned, base):
        flips_N |= flips(pair.peft.routers_MNE, pair.llama.routers_MNE, n_used, noise)
    kept_N = ~left_out(flips_N, lengths)
    if kept_N.sum() < min(FEWEST_TOKENS, len(flips_N)):
        raise StageError(
            f"routers resolve near-ties differently in the two runtimes at {int(flips_N.sum())} of {len(flips_N)} "
            "probe tokens, too many to compare them: use a finer base (exporter.base_type=f32 or f16) or more probes"
        )
    d_peft = (tuned.peft.logp_NK - base.peft.logp_NK)[kept_N]
    d_llama = (tuned.llama.logp_NK - base.llama.logp_NK)[kept_N]
    norm = rms(d_peft)
    error = rms(d_llama - d_peft) / norm if norm else (0.0 if not rms(d_llama) else math.inf)
    return Difference(norm, rms(d_llama), error, int(flips_N.sum()))


@dataclass(frozen=True)
class Findings:
    """What was measured."""

    tensors: tuple[TensorLiveness, ...]
    together: TensorLiveness
    n_probe_tokens: int
    base_parity_rms: float
    routing_flips: int
    """Probe tokens with a flip in `together`."""


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def certify(
    peft: PeftModelProbe,
    updates: Mapping[str, Update],
    carrier: Carrier,
    base: Path,
    probes: Sequence[Probe],
    *,
    max_relative_error: float,
    n_threads: int = 1,
    tick: Tick = no_tick,
) -> Findings:
    """Measures every trained tensor alone and the live ones together; the carrier then holds the live ones.

    Args:
        peft: The target wrapped in PEFT, open.
        updates: Parameter → update, as the exporter read it.
        carrier: The export under test.
        base: The base GGUF.
        probes: The sequences; all their completion tokens are compared.
        max_relative_error: Bound on |d_llama − d_peft| / |d_peft| for a tensor to be live.
        n_threads: llama.cpp threads.
        tick: Progress, once per tensor and once for all together.

    Raises:
        StageError: PEFT adapts parameters other than those the exporter read, or routing differs almost everywhere.
        LlamaCrashed, LlamaFailed: The base or the final export cannot be evaluated.
    """
    if peft.parameters() != set(updates):
        other = sorted(peft.parameters() ^ set(updates))
        raise StageError(f"PEFT and the exporter read different tensors from the adapter: {', '.join(other)}")
    total = len(updates) + 1
    runtime = Runtime(max(len(probe.ids) for probe in probes), n_threads)
    try:
        peft.lay({})
        chosen_NK = peft.choose(probes)
        bench = Bench(peft, carrier, runtime, probes, chosen_NK, max_relative_error)
        bench.measure_bases(base)
        tensors = []
        for done, (name, update) in enumerate(updates.items()):
            tick(done, total)
            tensors.append(bench.alone(name, update))
        live = {t.name for t in tensors if t.live}
        tick(total - 1, total)
        together, n_flips = bench.together([t for t in tensors if t.name in live])
        tick(total, total)
    finally:
        runtime.close()
    return Findings(tuple(tensors), together, len(chosen_NK), bench.parity, n_flips)


def in_the_file(
    peft: PeftModelProbe,
    carrier: Carrier,
    base: Path,
    live: Sequence[str],
    probes: Sequence[Probe],
    *,
    n_threads: int = 1,
) -> Difference:
    """Measures the live updates at factor 1 with the file's own kernels, over all probe tokens; the carrier keeps them.

    Nothing is decided by it: these kernels round activations, in the base and in the tuned file alike.
    """
    runtime = Runtime(max(len(probe.ids) for probe in probes), n_threads)
    try:
        peft.lay({})
        chosen_NK = peft.choose(probes)
        peft_base = peft.read(probes, chosen_NK)
        peft.lay(dict.fromkeys(live, 1.0))
        d_peft = peft.read(probes, chosen_NK).logp_NK - peft_base.logp_NK
        file_base = runtime.read((base, None), probes, chosen_NK)
        carrier.lay(dict.fromkeys(live, 1.0))
        d_llama = runtime.read(carrier.files(), probes, chosen_NK).logp_NK - file_base.logp_NK
    finally:
        runtime.close()
    return Difference(rms(d_peft), rms(d_llama), rms(d_llama - d_peft) / rms(d_peft), 0)


class Bench:
    """Both runtimes side by side on the same probes."""

    def __init__(
        self,
        peft: PeftModelProbe,
        carrier: Carrier,
        runtime: Runtime,
        probes: Sequence[Probe],
        chosen_NK: np.ndarray,
        max_relative_error: float,
    ) -> None:
        self._peft, self._carrier, self._runtime = peft, carrier, runtime
        self._probes, self._chosen_NK = probes, chosen_NK
        self._lengths = [len(probe.next_ids) for probe in probes]
        self._bound = max_relative_error
        self.parity = 0.0

    def measure_bases(self, base: Path) -> None:
        """Measures the base in PEFT, the base file, and the carrier without any update."""
        self._peft_base = self._peft.read(self._probes, self._chosen_NK)
        self._file_base = self._runtime.read((base, None), self._probes, self._chosen_NK)
        self._carrier.lay({})
        self._carrier_base = self._runtime.read(self._carrier.files(), self._probes, self._chosen_NK)
        peft_MNE, file_MNE = self._peft_base.routers_MNE, self._file_base.routers_MNE
        self._noise = router_noise(peft_MNE, file_MNE)
        kept_N = ~left_out(flips(peft_MNE, file_MNE, self._peft.n_used, self._noise), self._lengths)
        self.parity = rms((self._file_base.logp_NK - self._peft_base.logp_NK)[kept_N])
        self._signal = min(max(SIGNAL_OVER_PARITY * self.parity, SMALLEST_SIGNAL), LARGEST_SIGNAL)

    def alone(self, name: str, update: Update) -> TensorLiveness:
        """Measures one tensor and returns its entry."""
        if update.is_zero:
            return self._entry(name, None, 1.0, "its update is exactly zero")
        factor, peft = self._stand_out([name])
        alone = self._difference(peft, peft, self._peft_base)
        obstacle = self._carrier.obstacle(name)
        if obstacle:
            return self._entry(name, alone, factor, obstacle, carried=False)
        self._carrier.lay({name: factor})
        try:
            llama = self._runtime.read(self._carrier.files(), self._probes, self._chosen_NK)
        except (LlamaCrashed, LlamaFailed) as error:
            return self._entry(name, alone, factor, str(error), carried=False)
        # against the carrier without any update: all tensor types are the same, only the update differs
        return self._entry(name, self._difference(peft, llama, self._carrier_base), factor, "")

    def together(self, tensors: Sequence[TensorLiveness]) -> tuple[TensorLiveness, int]:
        """Measures the export as it is against the base file; also returns the number of routing flips left out."""
        names = [t.name for t in tensors]
        n_trainable = sum(t.n_trainable for t in tensors)
        types = " + ".join(dict.fromkeys(kind for t in tensors for kind in t.ggml_type.split(" + ")))
        if not names:
            self._carrier.lay({})
            return _together(0, "", None, 1.0, False, "no trained tensor is live"), 0
        factor, peft = self._stand_out(names)
        measured, note = self._whole(names, factor, peft), ""
        if factor != 1.0:
            note = f"judged at {factor:g} times the update, which itself is too small to stand out from parity noise"
            exact = self._whole(names, 1.0, self._read_peft(names, 1.0))
            note += f" (at 1: PEFT {exact.peft_norm:.2g}, llama.cpp {exact.llama_norm:.2g} nats)"
        live = measured.relative_error <= self._bound and measured.llama_norm > self.parity
        return _together(n_trainable, types, measured, factor, live, note), measured.n_flips

    def _whole(self, names: Sequence[str], factor: float, peft: Reading) -> Difference:
        self._carrier.lay(dict.fromkeys(names, factor))
        llama = self._runtime.read(self._carrier.files(), self._probes, self._chosen_NK)
        return self._difference(peft, llama, self._file_base)

    def _difference(self, peft: Reading, llama: Reading, llama_base: Reading) -> Difference:
        tuned, base = Pair(peft, llama), Pair(self._peft_base, llama_base)
        return difference(tuned, base, self._lengths, self._peft.n_used, self._noise)

    def _read_peft(self, names: Sequence[str], factor: float) -> Reading:
        self._peft.lay(dict.fromkeys(names, factor))
        return self._peft.read(self._probes, self._chosen_NK)

    def _stand_out(self, names: Sequence[str]) -> tuple[float, Reading]:
        """Returns a power of two, ≥ 1, at which the updates' effect in PEFT stands out, and PEFT's reading there."""
        factor, reading = 1.0, self._read_peft(names, 1.0)
        norm = rms(reading.logp_NK - self._peft_base.logp_NK)
        while norm < self._signal:
            step = min(2.0 ** math.ceil(math.log2(self._signal / norm)), LARGEST_STEP) if norm else LARGEST_STEP
            larger = self._read_peft(names, factor * step)
            grown = rms(larger.logp_NK - self._peft_base.logp_NK)
            if factor * step > LARGEST_FACTOR or (norm > SMALLEST_SIGNAL and grown < norm * min(SATURATED, step)):
                break
            factor, reading, norm = factor * step, larger, grown
        return factor, reading

    def _entry(
        self, name: str, measured: Difference | None, factor: float, note: str, *, carried: bool = True
    ) -> TensorLiveness:
        entry = self._carrier.describe(name)
        peft_norm = measured.peft_norm if measured else 0.0
        llama_norm = measured.llama_norm if measured and carried else 0.0
        error = measured.relative_error if measured and carried else 1.0
        notes, faithful = [entry.note, note], True
        if measured and factor != 1.0:
            notes.append(f"measured at {factor:g} times the update")
            # the unscaled update was not measured then, so what the file's type does to it must be small
            faithful = entry.storage_error <= self._bound
        if measured and carried and measured.n_flips:
            notes.append(f"{measured.n_flips} routing flips left out")
        return TensorLiveness(
            name=name,
            n_trainable=entry.n_trainable,
            ggml_type=entry.ggml_type,
            peft_norm=peft_norm,
            llama_norm=llama_norm,
            relative_error=error,
            live=carried and measured is not None and faithful and error <= self._bound and llama_norm > self.parity,
            note="; ".join(filter(None, notes)),
            factor=factor,
            erased_share=entry.erased_share,
            storage_error=entry.storage_error,
        )


def _together(
    n_trainable: int, types: str, measured: Difference | None, factor: float, live: bool, note: str
) -> TensorLiveness:
    return TensorLiveness(
        name="all together",
        n_trainable=n_trainable,
        ggml_type=types,
        peft_norm=measured.peft_norm if measured else 0.0,
        llama_norm=measured.llama_norm if measured else 0.0,
        relative_error=measured.relative_error if measured else 1.0,
        live=live,
        note=note,
        factor=factor,
    )
