"""The interfaces that plugins implement, and the requests they receive.

Two inputs (Target, ProblemSource), six steps (Observer, Attributor, LayerSelector, Trainer,
Exporter, Judge), each with one principal method, and one output (Tracker). A component is a
dataclass: its fields are its Hydra options, its docstring is its help text, and `__post_init__`
checks the values. It keeps no state between calls. See docs/hooks.md.
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
"""`tick(done, total)` tells the progress display how far a component has got. Calling it is optional."""


def no_tick(done: int, total: int) -> None:
    """Shows nothing."""


@runtime_checkable
class Target(Protocol):
    """A causal language model to audit and train."""

    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions can change the result; they enter the store's key."""

    def describe(self) -> TargetInfo:
        """Returns facts from the configuration alone, without torch; raises InputError if no weights are on disk."""

    def load(self) -> LoadedTarget:
        """Returns the model and its tokenizer, in memory, in evaluation mode."""


@runtime_checkable
class ProblemSource(Protocol):
    """Problems with a reference answer and a verifier."""

    libraries: ClassVar[tuple[str, ...]]

    def draw(self) -> tuple[Sequence[Problem], Sequence[Problem]]:
        """Returns train and held-out problems, disjoint in canonical form."""

    def verify(self, problem: Problem, completion: str) -> Verification:
        """Returns whether a completion is correct and where its steps first go wrong. Must not raise on any text."""


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """What an observer receives: traces, each to be audited separately."""

    items: Sequence[tuple[Problem, Trace]]
    source: ProblemSource
    telemetry: Telemetry
    target: TargetSession
    ledger: Ledger
    """Takes every remote call (m3i.ledger), so that answers are kept, counted and never paid for twice."""
    tick: Tick = no_tick


@runtime_checkable
class Observer(Protocol):
    """Audits traces and points out *where* each one fails."""

    libraries: ClassVar[tuple[str, ...]]

    async def audit(self, request: AuditRequest) -> Audit:
        """Returns findings with verbatim quotes (see `Finding`); a trace without a valid reply is `missing`."""


@dataclass(frozen=True, kw_only=True)
class AttributionRequest:
    """What an attributor receives."""

    target: TargetSession
    contrasts: Sequence[Contrast]
    """One per (observer, trace): the position where the trace goes wrong, the wrong token and the correct one."""
    audits: Mapping[str, Audit]
    """Observer's alias → its audit, for attributors that use the observers' own statements."""
    traces: Sequence[Trace]
    telemetry: Telemetry
    tick: Tick = no_tick


@dataclass(frozen=True, kw_only=True)
class AttributionRows:
    """What an attributor returns: one row of layer values per (observer, trace) that it could score.

    The core averages the rows into joint scores and scores per observer, with a bootstrap over problems.
    """

    observers: Sequence[str]
    trace_ids: Sequence[str]
    values_NL: Any
    """numpy float array, rows × layers. A higher value means that the layer carries more of the failure."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason → number of findings or contrasts that gave no row."""


@runtime_checkable
class Attributor(Protocol):
    """Scores each layer's part in the failures."""

    libraries: ClassVar[tuple[str, ...]]

    def attribute(self, request: AttributionRequest) -> AttributionRows:
        """Returns layer values for each audited failure."""


@dataclass(frozen=True, kw_only=True)
class SelectionRequest:
    """What a selector receives."""

    info: TargetInfo
    scores: Mapping[str, LayerScores]
    """Attributor's alias → scores."""


@runtime_checkable
class LayerSelector(Protocol):
    """Picks the layers to train."""

    libraries: ClassVar[tuple[str, ...]]

    def select(self, request: SelectionRequest) -> LayerSelection:
        """Returns the layers in ascending order, and the reason in words."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What a trainer receives. `folder` is empty and becomes the folder of the adapter artifact."""

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
    """What an exporter receives. `folder` is empty and becomes the folder of the export artifact."""

    target: TargetSession
    base: BaseModel
    adapter: Adapter
    selection: LayerSelection
    probes: Sequence[Trace]
    """The traces on whose tokens the certificate is measured."""
    folder: Path
    tick: Tick = no_tick


@runtime_checkable
class Exporter(Protocol):
    """Brings the base model and the tuned model to llama.cpp and proves that the update arrived."""

    libraries: ClassVar[tuple[str, ...]]

    def base_fields(self) -> Mapping[str, Any]:
        """Returns the options that change the base model's file; arms and exporters with equal options share it."""

    def export_base(self, target: TargetSession, probes: Sequence[Trace], folder: Path) -> BaseModel:
        """Writes (or points to) the base model's GGUF and measures its parity with transformers."""

    def export(self, request: ExportRequest) -> Export:
        """Writes the tuned GGUF or a llama.cpp adapter, with a certificate of what the update changes."""


@dataclass(frozen=True, kw_only=True)
class BlindPair:
    """Two answers to one problem; the judge is not told which model gave which."""

    key: str
    problem: Problem
    a: Answer
    b: Answer


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """A judge's choice on one blind pair: `a`, `b`, `tie`, or `missing` if no valid reply came."""

    key: str
    choice: str
    reason: str = ""
    replicates: tuple[str, ...] = ()
    """The individual choices behind `choice`, if the judge was asked more than once; same values."""


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """What a judge returns: one ballot per pair, in any order, and the calls behind them."""

    ballots: Sequence[Ballot]
    calls: CallFacts = field(default_factory=CallFacts)


@dataclass(frozen=True, kw_only=True)
class JudgeRequest:
    """What a judge receives: every comparison twice, once in each order, all shuffled."""

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
        """Returns one ballot per pair, in any order, with the pair's key."""


@runtime_checkable
class Tracker(Protocol):
    """Hands finished results on to an experiment tracker."""

    libraries: ClassVar[tuple[str, ...]]

    def track_run(self, result: Mapping[str, Any], folder: Path) -> str:
        """Hands on one run: the content of result.json, and its folder. Returns in a few words where to find it."""

    def track_sweep(self, sweep: Mapping[str, Any], folder: Path) -> str:
        """Hands on a sweep: the content of sweep.json, and its folder. Its runs may already have been handed on."""
