"""The interfaces that plugins implement, and what each is handed.

Six interfaces (Observer, Attributor, LayerSelector, Trainer, Exporter, Judge) and two inputs
(Target, ProblemSource), each with one principal method, and one way out (Tracker). A component
is a dataclass: its fields are its Hydra options, its docstring is its help, `__post_init__` checks
the values. It holds no state between calls. See docs/hooks.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from m3i.artifacts import (
    Adapter,
    Answer,
    Audit,
    BaseModel,
    CallFacts,
    Contrast,
    Export,
    LayerScores,
    LayerSelection,
    PreferencePairs,
    Problem,
    ReferenceLogprobs,
    TargetInfo,
    Telemetry,
    Trace,
    Verification,
)

if TYPE_CHECKING:
    from m3i.ledger import Ledger
    from m3i.models.session import TargetSession
    from m3i.models.target import LoadedTarget

Tick = Callable[..., None]
"""`tick(done, total)`: tells the progress display how far a component is. Never required to be called."""


def no_tick(done: int, total: int) -> None:
    """A tick that shows nothing."""


@runtime_checkable
class Target(Protocol):
    """A causal language model to audit and train."""

    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions change the result; they enter the store's key."""

    def describe(self) -> TargetInfo:
        """Facts from the configuration alone: no weights, no torch; raises InputError without weights on disk."""

    def load(self) -> LoadedTarget:
        """The model and its tokenizer, in memory, in evaluation mode."""


@runtime_checkable
class ProblemSource(Protocol):
    """Problems with a reference answer and a verifier."""

    libraries: ClassVar[tuple[str, ...]]

    def draw(self) -> tuple[Sequence[Problem], Sequence[Problem]]:
        """Train and held-out problems, disjoint in canonical form."""

    def verify(self, problem: Problem, completion: str) -> Verification:
        """Whether a completion answers the problem, and where its steps first go wrong. Never raises on text."""


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """What an observer is handed: traces to audit, each alone."""

    items: Sequence[tuple[Problem, Trace]]
    source: ProblemSource
    telemetry: Telemetry
    target: TargetSession
    ledger: Ledger
    """Every remote call goes through it (m3i.ledger): answered calls are kept, counted and never paid for twice."""
    tick: Tick = no_tick


@runtime_checkable
class Observer(Protocol):
    """Audits traces and says *where* each fails."""

    libraries: ClassVar[tuple[str, ...]]

    async def audit(self, request: AuditRequest) -> Audit:
        """Findings as verbatim quotes (see `m3i.artifacts.Finding`); a trace that got no valid answer is `missing`."""


@dataclass(frozen=True, kw_only=True)
class AttributionRequest:
    """What an attributor is handed."""

    target: TargetSession
    contrasts: Sequence[Contrast]
    """One a (observer, trace): the position where the trace goes wrong, the wrong and the right token."""
    audits: Mapping[str, Audit]
    """Observer's alias → its audit, for attributors that read what observers say themselves."""
    traces: Sequence[Trace]
    telemetry: Telemetry
    tick: Tick = no_tick


@dataclass(frozen=True, kw_only=True)
class AttributionRows:
    """What an attributor returns: one row of layer values a (observer, trace) that it could score.

    The core averages rows to scores per observer and joint, with a bootstrap over traces.
    """

    observers: Sequence[str]
    trace_ids: Sequence[str]
    values_NL: Any
    """numpy float array, rows × layers. Higher means: this layer carries more of the failure."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason → number of findings or contrasts that gave no row."""


@runtime_checkable
class Attributor(Protocol):
    """Scores each layer's part in the failures."""

    libraries: ClassVar[tuple[str, ...]]

    def attribute(self, request: AttributionRequest) -> AttributionRows:
        """Layer values for each audited failure."""


@dataclass(frozen=True, kw_only=True)
class SelectionRequest:
    """What a selector is handed."""

    info: TargetInfo
    scores: Mapping[str, LayerScores]
    """Attributor's alias → scores."""


@runtime_checkable
class LayerSelector(Protocol):
    """Picks the layers to train."""

    libraries: ClassVar[tuple[str, ...]]

    def select(self, request: SelectionRequest) -> LayerSelection:
        """Layers in ascending order and the reason in words."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What a trainer is handed. `folder` is empty and becomes the adapter artifact's folder."""

    target: TargetSession
    selection: LayerSelection
    pairs: PreferencePairs
    reference: ReferenceLogprobs
    seed: int
    folder: Path
    tick: Tick = no_tick


@runtime_checkable
class Trainer(Protocol):
    """Trains the selected layers and nothing else."""

    libraries: ClassVar[tuple[str, ...]]

    def train(self, request: TrainRequest) -> Adapter:
        """Writes a PEFT adapter into `request.folder` and returns it with its certificate."""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What an exporter is handed. `folder` is empty and becomes the export artifact's folder."""

    target: TargetSession
    base: BaseModel
    adapter: Adapter
    selection: LayerSelection
    probes: Sequence[Trace]
    """Traces whose tokens the certificate is measured on."""
    folder: Path
    tick: Tick = no_tick


@runtime_checkable
class Exporter(Protocol):
    """Brings base and tuned model to llama.cpp and proves that the update arrived."""

    libraries: ClassVar[tuple[str, ...]]

    def base_fields(self) -> Mapping[str, Any]:
        """Options that change the base model file, which all arms and exporters that agree on them share."""

    def export_base(self, target: TargetSession, probes: Sequence[Trace], folder: Path) -> BaseModel:
        """Writes (or points to) the base GGUF and measures its parity with transformers."""

    def export(self, request: ExportRequest) -> Export:
        """Writes the tuned GGUF or a llama.cpp adapter, with a certificate over differences."""


@dataclass(frozen=True, kw_only=True)
class BlindPair:
    """Two answers to one problem; the judge is not told which model gave which."""

    key: str
    problem: Problem
    a: Answer
    b: Answer


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """A judge's choice on one blind pair: `a`, `b`, `tie`, or `missing` when no valid answer came."""

    key: str
    choice: str
    reason: str = ""
    replicates: tuple[str, ...] = ()
    """Single choices behind `choice`, where the judge was asked more than once; same words."""


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """What a judge returns: one ballot a pair, in any order, and what the calls behind them came to."""

    ballots: Sequence[Ballot]
    calls: CallFacts = field(default_factory=CallFacts)


@dataclass(frozen=True, kw_only=True)
class JudgeRequest:
    """What a judge is handed: every comparison twice, once in each order, shuffled."""

    pairs: Sequence[BlindPair]
    source: ProblemSource
    ledger: Ledger
    """As in AuditRequest."""
    tick: Tick = no_tick


@runtime_checkable
class Judge(Protocol):
    """Compares two answers to one problem."""

    libraries: ClassVar[tuple[str, ...]]

    async def judge(self, request: JudgeRequest) -> Judgment:
        """One ballot a pair, in any order, with the pair's key."""


@runtime_checkable
class Tracker(Protocol):
    """Hands finished results on to an experiment tracker."""

    libraries: ClassVar[tuple[str, ...]]

    def track_run(self, result: Mapping[str, Any], folder: Path) -> str:
        """Hands on one run: the content of result.json and its folder. Says in a few words where it can be found."""

    def track_sweep(self, sweep: Mapping[str, Any], folder: Path) -> str:
        """Hands on a sweep: the content of sweep.json and its folder. Its runs may have been handed on before."""
