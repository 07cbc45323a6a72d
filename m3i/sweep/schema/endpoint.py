"""One endpoint of a sweep: its values by arm, the test and what stands beside it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, WithJsonSchema

from m3i.config.arms import ArmKind
from m3i.config.settings import EndpointKind
from m3i.results.schema.values import (
    Count,
    Estimate,
    Integer,
    Layers,
    Level,
    Number,
    Positive,
    Section,
    Share,
    Size,
    Text,
)
from m3i.statistics.randomization import Alternative

AnyArm = Annotated[
    ArmKind, Field(strict=False), WithJsonSchema({"enum": [kind.value for kind in ArmKind], "type": "string"})
]
"""A kind of arm by its value, as JSON has it."""
Alpha = Annotated[float, Field(gt=0, lt=0.5)]
Margin = Annotated[float, Field(gt=0, lt=0.5)]
Effect = Annotated[float, Field(gt=0.5, lt=1)]


class Difference(Estimate):
    """A difference of two shares or scores with a t interval, whose ends can lie beyond ±1."""

    low: Number
    """Lower end of the interval."""
    high: Number
    """Upper end of the interval."""


class SeedValue(Section):
    """T of an arm at one training seed."""

    seed: Integer
    """Training seed."""
    t: Share | None
    """The endpoint's value; null without a problem."""


class Place(Section):
    """T of one arm: the mean of the endpoint over training seeds, problems and generation seeds."""

    arm: Text
    """Name of the arm."""
    kind: AnyArm
    """Kind of the arm."""
    layers: Layers
    """Layers trained."""
    seeds: list[Integer]
    """Training seeds averaged over: those of the test, or all of an arm that is not tested."""
    n: Count
    """Problems averaged over: those of the endpoint for which the arm has every verdict."""
    t: Share | None
    """The arm's value; null without a problem."""
    tie_rate: Share | None
    """Share of its comparisons that decide nothing; null for an arm that is not tested."""
    by_seed: list[SeedValue]
    """The value at each training seed."""


class RandomizationTest(Section):
    """The attributed arm among its controls."""

    p: Share
    """(1 + `n_extreme`) / (`n_controls` + 1)."""
    floor: Share
    """The smallest p that so many controls allow."""
    n_controls: Positive
    """Random arms in the test."""
    n_extreme: Count
    """Controls at least as extreme as the attributed arm, ties included."""
    rank: Positive
    """Place of the attributed arm among all arms, 1 the highest; behind every control that it ties with."""
    percentile: Share
    """Share of controls below the attributed arm, ties half."""
    alternative: Alternative
    """What the attributed arm was claimed to be."""
    alpha: Level
    """Level of the test."""
    significant: bool
    """Whether p ≤ `alpha`."""
    controls_for_alpha: Positive
    """Controls with which p ≤ `alpha` becomes possible."""


class ControlEffect(Section):
    """How far the attributed arm lies from the mean of its controls."""

    difference: Difference
    """T of the attributed arm minus the controls' mean, with an interval over problems and training seeds."""
    se: Size
    """Standard error of the difference; 0 where nothing varies."""
    df: Size
    """Satterthwaite's degrees of freedom."""
    sd_controls: Size | None
    """Standard deviation of T among controls; null with one control."""
    standardised: Number | None
    """The difference in standard deviations of the controls; null where those do not vary."""
    n_seeds: Positive
    """Training seeds; with one, the interval is over problems alone."""


class Equivalence(Section):
    """Two one-sided tests of equivalence (TOST)."""

    p_lower: Share
    """p of "the true value is at most `neutral` − `margin`"."""
    p_upper: Share
    """p of "the true value is at least `neutral` + `margin`"."""
    p: Share
    """The larger of the two."""
    equivalent: bool
    """Whether p ≤ `alpha`."""
    low: Number
    """Lower end of the interval at 1 − 2 `alpha`."""
    high: Number
    """Upper end of the interval."""
    margin: Size
    """The largest difference that does not matter, as registered."""
    alpha: Level
    """Level of each test."""
    neutral: Share
    """The value of no effect."""


class EquivalenceSection(Section):
    """Whether the attributed arm is equivalent to what it is compared with."""

    margin: Size
    """The registered margin."""
    base: Equivalence | None
    """With the base model; null where `base_why` says why."""
    base_why: Text
    """Why `base` is null; empty otherwise."""
    controls: Equivalence | None
    """With the mean of the controls; null where `controls_why` says why."""
    controls_why: Text
    """Why `controls` is null; empty otherwise."""
    too_wide: bool
    """Whether the margin is at least `power.effect.shift`, so that equivalence does not show the effect's absence."""


class TrainingEffect(Section):
    """The mean over the tested arms against the base model."""

    n_arms: Positive
    """Arms of the test."""
    n_below: Count
    """Arms whose own mean lies below the base model's."""
    difference: Estimate
    """Mean over the arms minus the base model's value, with an interval over problems."""


class AgainstBase(Section):
    """The attributed arm against the base model, on the problems and training seeds of the test."""

    wins: Count
    """Problems that the attributed arm wins by most of their comparisons."""
    losses: Count
    """Problems that the base model wins."""
    undecided: Count
    """Problems that neither wins."""
    p: Share
    """Two-sided exact p of the sign test."""


class ShuffledEffect(Section):
    """The attributed arm minus the shuffled one."""

    seeds: list[Integer]
    """Training seeds that both have."""
    difference: Difference
    """Difference of T, problem by problem."""


class SoughtEffect(Section):
    """The effect that the plan names, as a shift of T."""

    share: Effect
    """Wins among decided problems."""
    tie_rate: Share | None
    """Share of the attributed arm's comparisons that decide nothing; null without one."""
    shift: Number | None
    """The shift of T that such a share makes; null where `why` says why."""
    sd: Size | None
    """Standard deviation of one comparison at that share; null where `why` says why."""
    why: Text
    """Why a number is null; empty otherwise."""


class PowerAgainstBase(Section):
    """What the comparison with the base model could find."""

    n: Count
    """Problems."""
    sd: Size | None
    """Standard deviation of a problem's value; null with fewer than two problems."""
    detectable: Size | None
    """Smallest shift of T found with the registered power; null with fewer than two problems."""
    required_problems: Count | None
    """Problems with which a t test finds the effect sought; null where no number is enough, or `why` says why."""
    required_problems_sign: Count | None
    """The same for the exact sign test."""
    why: Text
    """Why a number is null; empty otherwise, where a null means that no number is enough."""


class PowerAgainstControls(Section):
    """What the randomization test could find."""

    n_controls: Count
    """Random arms in the test."""
    between: Size | None
    """Variance of true means between layer sets; null without controls."""
    within: Size | None
    """Variance of T around its set's true mean; null without controls."""
    detectable: Size | None
    """Smallest shift of T found with the registered power; null where the controls are too few for `alpha`."""
    power_at_effect: Share | None
    """Power at the effect sought."""
    required_controls: Count | None
    """Controls with which the effect sought is found, all else equal; null where no number is enough."""
    required_problems: Count | None
    """Problems with which it is found, all else equal; null where no number is enough."""
    required_seeds: Count | None
    """Training seeds with which it is found, all else equal; null where no number is enough."""
    why: Text
    """Why a number is null, or approximate; empty otherwise."""


class Power(Section):
    """What this sweep could have found, and what the effect sought would take."""

    power: Level
    """Power at which numbers are stated."""
    alpha: Level
    """Level of the test."""
    tie_rate: Share | None
    """Share of the attributed arm's comparisons that decide nothing; null without one."""
    effect: SoughtEffect
    """The effect sought."""
    base: PowerAgainstBase
    """The attributed arm against the base model."""
    controls: PowerAgainstControls
    """The attributed arm against its controls."""


class Endpoint(Section):
    """One quantity by which arms are compared, T for short."""

    name: Text
    """`score:<judge>` or `accuracy`."""
    kind: EndpointKind
    """Mean score of a judge, or share of correct answers by the verifier."""
    judge: Text
    """Alias of the judge; empty for the accuracy."""
    words: Text
    """What T is, as the subject of a sentence."""
    base: Share | None
    """T of the base model: ½ for a score; null without a problem."""
    n_problems: Count
    """Problems compared."""
    n_left_out: Count
    """Problems left out of all arms, since a job of the test lacks a verdict on them."""
    left_out: list[Text]
    """Hashes of those problems."""
    tie_rate: Share | None
    """Share of the attributed arm's comparisons that decide nothing; null without one."""
    attributed: Place | None
    """The attributed arm; null without a result."""
    controls: list[Place]
    """The random arms of the test."""
    others: list[Place]
    """All other arms, which are not tested."""
    controls_mean: Share | None
    """Mean T of the controls; null without one."""
    why: Text
    """Why there is no test; empty where there is one."""
    test: RandomizationTest | None
    """The attributed arm among its controls; null where `why` says why."""
    effect: ControlEffect | None
    """How far it lies from their mean; null where `why` says why."""
    training: TrainingEffect | None
    """Whether training itself helped or hurt; null without a tested arm or a problem."""
    against_base: AgainstBase | None
    """The attributed arm against the base model; null where it has no result."""
    shuffled: ShuffledEffect | None
    """The attributed arm against shuffled preferences; null without a shuffled arm at the seeds of the test."""
    power: Power
    """What could have been found."""
    equivalence: EquivalenceSection
    """Whether a null shows that there is no difference."""


class SecondaryEndpoint(Endpoint):
    """An endpoint that is tested only where the primary one is significant."""

    adjusted: Share | None
    """p corrected by Holm; null where it is not tested."""
    significant: bool
    """Whether it is significant after correction."""
    same_as: Text | None
    """Name of an earlier endpoint that it restates on another scale, so that it is no second test; null otherwise."""


class Contrast(Section):
    """Arms that exclude the attributed layers, shown without a p."""

    endpoint: Text
    """Name of the primary endpoint."""
    arms: list[Place]
    """The excluding arms."""
    compared: list[Text]
    """Names of those with a result at each training seed of the test."""
    difference: Difference | None
    """T of the attributed arm minus their mean; null where `why` says why."""
    why: Text
    """Why there is no difference; empty otherwise."""
    words: Text
    """Why there is no p."""


class VarianceComponent(Section):
    """One source of variance."""

    name: Text
    """`problem`, `generation`, `training`, `draw`, an interaction or `residual`."""
    value: Size | None
    """Variance of a single value due to it; null where the design cannot separate it."""
    raw: Number | None
    """The unbiased estimate, which can be negative; null where `value` is."""
    levels: Count
    """Levels in the design."""
    why: Text
    """Why `value` is null, or which other sources it holds; empty otherwise."""
    share: Share | None
    """Share of the total; null where `value` is, or where nothing varies."""


class Variance(Section):
    """Where the spread of the random arms comes from, on one endpoint."""

    endpoint: Text
    """Name of the endpoint."""
    draws: Count
    """Random arms of the test."""
    seeds: Count
    """Training seeds of the test."""
    problems: Count
    """Problems compared."""
    generation_seeds: Count
    """Generation seeds."""
    total: Size | None
    """Variance of a single value; null where `why` says why."""
    components: list[VarianceComponent]
    """Its components; empty where `why` says why."""
    why: Text
    """Why there is nothing to split; empty otherwise."""
