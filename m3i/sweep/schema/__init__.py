"""The schema of sweep.json: every field with its type, range and meaning.

docs/schema.md and `m3i schema sweep` print it, and `m3i.sweep.stored` validates with it what it reads.
`m3i.sweep.compare` builds the document as plain values; a test compares the fields of what it builds with those
declared here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from m3i.config.settings import EndpointKind
from m3i.results.schema import Result
from m3i.results.schema.values import (
    Caveat,
    Count,
    Created,
    Integer,
    Layers,
    Level,
    NextStep,
    Number,
    Positive,
    Section,
    Share,
    Text,
)
from m3i.statistics.randomization import Alternative
from m3i.sweep.schema.arms import Arm, SweepCosts, SweepJudges
from m3i.sweep.schema.endpoint import (
    Alpha,
    Contrast,
    Effect,
    Endpoint,
    Margin,
    SecondaryEndpoint,
    Variance,
)

__all__ = ["Sweep"]


class Registration(Section):
    """What plan.json asked for when it was first written. What is absent has the value of the results' own config."""

    at: Text
    """When it was registered, as 2026-11-22 20:16:39+0000."""
    n_results: Count
    """Results that were already there."""
    arms: list[Text]
    """Arms asked for."""
    seeds: list[Integer]
    """Training seeds."""
    generation_seeds: list[Integer]
    """Generation seeds."""
    judge: Text
    """Alias of the judge whose score counts."""
    primary: EndpointKind
    """Primary endpoint."""
    n_random: Count
    """Random arms."""
    n_excluding: Count | None = None
    """Arms that exclude every attributed layer."""
    alternative: Alternative | None = None
    """What the attributed arm is claimed to be beside the random arms."""
    alpha: Alpha | None = None
    """Level of the primary test."""
    margin: Margin | None = None
    """Equivalence margin."""
    effect: Effect | None = None
    """Share of wins among decided problems that is to be found."""


class JobCounts(Section):
    """Jobs by what became of them."""

    planned: Count
    """Jobs of the plan, and those of earlier plans that have run."""
    done: Count
    """Jobs with a result that can be compared."""
    failed: Count
    """Jobs that failed, or whose result cannot be read or compared."""
    missing: Count
    """Jobs without a result and without an error."""


class PlanSection(Section):
    """What was asked for before the first result, and what differs."""

    registered: Registration | None
    """The first registration, which binds; null without a plan.json."""
    registrations: Count
    """Registrations in plan.json."""
    deviations: list[Text]
    """What differs from the first registration, in sentences."""
    jobs: JobCounts
    """The jobs."""


class IncompleteArm(Section):
    """An arm of the test that lacks a training seed."""

    arm: Text
    """Name of the arm."""
    missing: list[Integer]
    """Training seeds without a result."""
    entered: bool
    """Whether it is tested all the same."""


class DesignSection(Section):
    """Sizes, layers and the rules of the test."""

    target: Text
    """Name of the model."""
    n_layers: Positive
    """Its layers."""
    attributed: Layers
    """The attributed layers."""
    candidates: Layers
    """Layers that could have been selected."""
    k: Count
    """Attributed layers."""
    n_sets: Annotated[int, Field(ge=-1)] | None
    """Other layer sets that could have been drawn; null where that is not known."""
    n_controls: Count
    """Random arms in the test."""
    n_controls_planned: Count
    """Random arms that were planned."""
    enumerated: bool
    """Whether all other layer sets are in the test."""
    unregistered: list[Text]
    """Random arms that the first registration does not name: shown, not tested."""
    other_attributed: list[Text]
    """Random arms that were derived from another attributed set: not tested."""
    incomplete: list[IncompleteArm]
    """Arms of the test that lack a training seed."""
    planned_seeds: list[Integer]
    """Training seeds that were planned."""
    seeds: list[Integer]
    """Training seeds in the test: the planned ones at which the attributed arm has a result."""
    generation_seeds: list[Integer]
    """Generation seeds."""
    n_generation_seeds: Count
    """Their number."""
    n_problems: Count
    """Problems compared on the primary endpoint."""
    n_left_out: Count
    """Problems left out of it."""
    primary: EndpointKind
    """Primary endpoint."""
    judge: Text
    """Alias of the judge of the primary score."""
    alternative: Alternative
    """What the attributed arm is claimed to be beside the random arms."""
    alpha: Alpha
    """Level of the primary test."""
    margin: Margin
    """Equivalence margin."""
    effect: Effect
    """Share of wins among decided problems that is to be found."""
    level: Level
    """Confidence level of the intervals."""
    power: Level
    """Power at which detectable effects are stated."""
    p_floor: Share | None
    """The smallest p that so many controls allow; null without a control."""


class Check(Section):
    """Something that must hold for the arms to be comparable."""

    name: Text
    """Name of the check."""
    passed: bool | None
    """Whether it passed; null where there was nothing to check."""
    words: Text
    """What was found."""


class ProblemValues(Section):
    """How the attributed arm, or the mean of the controls, did on one problem."""

    accuracy: Share | None
    """Share of correct answers; null without an arm."""
    score: Share | None
    """The primary endpoint; null without an arm, or where a verdict is missing in the test."""


class SweepProblem(Section):
    """One held-out problem, averaged over training and generation seeds."""

    problem_id: Text
    """Hash of the problem."""
    prompt: Text
    """The problem as it was asked."""
    answer: Text
    """The reference answer."""
    base: Share
    """Share of correct answers of the base model."""
    left_out: bool
    """Whether the primary endpoint leaves it out."""
    difference: Number | None
    """Attributed arm minus controls on the primary endpoint; null where one of them is."""
    attributed: ProblemValues
    """The attributed arm."""
    controls: ProblemValues
    """The mean of the controls."""


class Failure(Section):
    """A job without a result that can be compared."""

    arm: Text
    """Name of the arm."""
    seed: Integer
    """Training seed."""
    folder: Text
    """Its folder, relative to the sweep."""
    state: Literal["failed", "unreadable", "missing", "incomparable"]
    """What became of it."""
    error: Text
    """Why."""


class SweepVerdict(Section):
    """The headline, from the randomization test of the primary endpoint."""

    kind: Literal["better", "worse", "not_better", "not_different", "untested"]
    """`better` or `worse` where the test is significant; `not_better` where it is not, or `not_different` where another
    alternative than `greater` was registered; `untested` without a valid test."""
    title: Text
    """The kind in words."""
    endpoint: Text
    """Name of the primary endpoint."""
    asked: Text
    """The question."""
    found: Text
    """The answer in numbers."""
    sure: Text
    """How far chance could explain it."""
    sentence: Text
    """The answer in a sentence that needs no statistics."""
    null: Text
    """What a null shows; empty where there is none."""
    harm: Text
    """Whether the tested arms lie below the base model; empty where they do not."""


class Sweep(Section):
    """The arms of one experiment compared. The page and the terminal read nothing else.

    Numbers are not rounded. One that cannot be computed is null, and a `why` beside it says so.
    """

    format: Literal[2]
    """Layout of the file; it rises when a field changes its meaning."""
    m3i: Text
    """Version of M3I."""
    created: Created
    """When the arms were compared, as 2026-11-22 20:16:38+0000."""
    command: Text
    """The command line of the sweep."""
    overrides: list[Text]
    """The overrides of the plan; empty without one."""
    name: Text
    """Name of the sweep's folder."""
    plan: PlanSection
    """What was asked for before the first result."""
    design: DesignSection
    """What is tested, on what and how."""
    primary: Endpoint
    """The registered endpoint."""
    secondary: list[SecondaryEndpoint]
    """All other endpoints."""
    arms: list[Arm]
    """All arms with a result, the attributed one first."""
    contrast: Contrast | None
    """Arms that exclude the attributed layers; null without one."""
    variance: list[Variance]
    """Where the spread of the random arms comes from, by endpoint."""
    judges: SweepJudges
    """How far the judges can be trusted."""
    checks: list[Check]
    """What must be equal in all arms."""
    problems: list[SweepProblem]
    """One row per held-out problem."""
    costs: SweepCosts
    """Time and money."""
    failures: list[Failure]
    """Jobs without a result that can be compared."""
    run: Result
    """The whole result.json of the attributed arm at its first training seed, or of the first job with a result."""
    verdict: SweepVerdict
    """The headline."""
    caveats: list[Caveat]
    """Limits, major ones first."""
    next: list[NextStep]
    """What would settle an open question."""
