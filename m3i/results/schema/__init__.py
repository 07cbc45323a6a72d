"""The schema of result.json: every field with its type, range and meaning.

docs/schema.md and `m3i schema result` print it, and `m3i.results.stored` validates what it reads against it.
m3i.results builds the document as plain values; a test compares the fields it builds with those declared here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from m3i.results.schema.calls import Costs, Stage
from m3i.results.schema.judging import Accuracy, Judge, Problems
from m3i.results.schema.model import BaseFile, Certificates, LayersSection, Parameters, Target, Training
from m3i.results.schema.observers import Agreement, Observer, Places, SharedErrors
from m3i.results.schema.traces import ContrastsSection, TelemetrySection, TraceExample, TracesSection
from m3i.results.schema.values import (
    LARGEST,
    Caveat,
    Count,
    Created,
    Integer,
    JudgePair,
    Layers,
    Level,
    NextStep,
    Seconds,
    Section,
    SharedFamily,
    Text,
)

__all__ = ["LARGEST", "Result", "Section"]


class StatisticsSection(Section):
    """The options `statistics.*` of the run."""

    n_bootstrap: Annotated[int, Field(ge=1, le=10**7)]
    """Bootstrap draws of problems."""
    seed: Count
    """Seed of the bootstrap and of the permutation tests."""
    confidence: Level
    """Confidence level of the intervals."""
    power: Level
    """Power for which detectable effects are given."""


class ArmSection(Section):
    """Which arm of the experiment this is, and what it is derived from."""

    name: Text
    """As in the config: `attributed`, `random-3`, `sham`."""
    kind: Text
    """`attributed`, `random`, `excluding`, `all`, `shuffled` or `sham`."""
    draw: Count | None
    """Number of the layer draw, from 0; null for arms that are not drawn."""
    draw_seed: Count | None = None
    """Seed of the order in which draws are numbered; null for arms that are not drawn. If absent, 0."""
    seed: Integer
    """Training seed."""
    attributed: Layers
    """The attributed layers, from which every arm is derived."""
    candidates: Layers
    """Layers that could have been selected."""
    n_sets: Annotated[int, Field(ge=-1)]
    """Number of other sets that the arm could have drawn."""
    n_excluding_sets: Annotated[int, Field(ge=-1)] | None = None
    """Number of those sets without an attributed layer; absent in results of early versions."""


class Evaluation(Section):
    """Answering the held-out problems in llama.cpp."""

    base_time_s: Seconds
    """Seconds for the base model."""
    tuned_time_s: Seconds
    """Seconds for the tuned model."""
    n_threads: Count
    """Threads per model."""


class ComponentRow(Section):
    """One component used, and where it comes from."""

    place: Text
    """Its place in the config: `trainer`, `judge.ALIAS`, ..."""
    name: Text
    """Its name."""
    distribution: Text
    """The distribution that provides it."""
    version: Text
    """The distribution's version."""
    source: Text = ""
    """Hash of its source; empty if unknown."""


class ArtifactId(Section):
    """The id of one artifact in the store."""

    kind: Text
    """Kind of artifact: `problems`, `traces`, `adapter`, ..."""
    name: Text
    """Alias of the observer, attributor or judge that made it; empty for other artifacts."""
    id: Text
    """The id."""


class RunVerdict(Section):
    """The headline, from the first judge of the panel."""

    kind: Literal["improved", "worse", "undecided", "sham", "leak", "none"]
    """`improved` or `worse` (p < 0.05), `undecided`; `sham` or `leak` (a sham arm that changed nothing, or did);
    `none` without a valid verdict."""
    title: Text
    """The kind in words."""
    judge: Text
    """Alias of the judge."""
    asked: Text
    """The question."""
    found: Text
    """The answer in numbers."""
    sure: Text
    """How easily chance could explain it."""
    sentence: Text
    """All of it in a paragraph."""


class Result(Section):
    """The result of one arm at one training seed. The report page and the terminal summary read nothing else."""

    format: Literal[3]
    """Version of the file's layout; raised when a field changes its meaning."""
    m3i: Text
    """Version of M3I."""
    created: Created
    """When the run ended, as 2026-11-22 20:16:38+0000."""
    command: Text
    """The command line; empty for a run started from Python."""
    overrides: list[Text]
    """The overrides of the config."""
    config: dict[str, Any]
    """The composed config."""
    statistics: StatisticsSection
    """The settings of the statistics."""
    arm: ArmSection
    """The arm."""
    judges: Annotated[dict[str, Judge], Field(min_length=1)]
    """Judge's alias → its results; the first one gives the headline."""
    judge_agreement: list[JudgePair]
    """Agreement of every pair of judges."""
    accuracy: Accuracy
    """Correct answers before and after."""
    problems: Problems
    """The problems, and every held-out answer with its verdicts."""
    target: Target
    """The model."""
    parameters: Parameters
    """Numbers of parameters: on disk, active, trained."""
    layers: LayersSection
    """Scores and selection."""
    training: Training
    """Preference pairs and training curve."""
    certificates: Certificates
    """What moved, and what arrived in llama.cpp."""
    base_model: BaseFile
    """The base model's file."""
    traces: TracesSection
    """The train traces."""
    telemetry: TelemetrySection
    """What was measured in the train traces."""
    observers: dict[str, Observer]
    """Observer's alias → what it found in the train traces."""
    agreement: Agreement
    """Agreement of every pair of observers."""
    errors: SharedErrors
    """Mistakes that observers share."""
    places: Places
    """Where observers locate failures."""
    contrasts: ContrastsSection
    """Next-token questions made from findings."""
    examples: list[TraceExample]
    """Audited train traces in full, as many as a result has room for."""
    evaluation: Evaluation
    """Time to answer the held-out problems."""
    stages: list[Stage]
    """How each stage was obtained, in order."""
    costs: Costs
    """Time and money."""
    families: list[SharedFamily]
    """Judges and observers that share a model family with another part of the run."""
    components: list[ComponentRow]
    """The components used."""
    versions: dict[str, Text]
    """Library → version."""
    ids: list[ArtifactId]
    """The artifacts, in the order of the stages."""
    verdict: RunVerdict
    """The headline."""
    caveats: list[Caveat]
    """Limits, major ones first."""
    next: list[NextStep]
    """What would settle an open question."""
