"""The arms of a sweep one by one, its judges over all arms, and its costs."""

from __future__ import annotations

from m3i.results.schema.judging import CanaryCounts, LengthCorrelation
from m3i.results.schema.values import (
    Bounded,
    Count,
    Estimate,
    Integer,
    JudgePair,
    Layers,
    McNemar,
    Money,
    Number,
    OutcomeCounts,
    Seconds,
    Section,
    Share,
    SharedFamily,
    SignTest,
    Text,
)
from m3i.sweep.schema.endpoint import AnyArm, SeedValue


class ProblemSigns(Section):
    """Problems by the majority of their comparisons."""

    wins: Count
    """Problems that the tuned model wins."""
    losses: Count
    """Problems that the base model wins."""
    undecided: Count
    """Problems that neither wins."""


class ArmLength(LengthCorrelation):
    """Whether the outcome goes with length, over problems."""

    extra_tokens: Number | None
    """Mean extra tokens of the tuned answers; null without a problem."""
    adjusted: Estimate | None
    """Mean score where both answers are equally long, by least squares; null where lengths do not vary, with fewer than
    four problems, or where one problem alone sets the slope."""


class ArmJudge(Section):
    """One judge's word on one arm, all training and generation seeds of a problem together."""

    n: Count
    """Comparisons."""
    counts: OutcomeCounts
    """Comparisons by outcome."""
    problems: ProblemSigns
    """Problems won and lost."""
    sign_test: SignTest
    """The exact test of them."""
    mean_score: Estimate
    """Mean score of the tuned model over problems."""
    length: ArmLength
    """Whether the outcome goes with length."""


class ArmPanel(Section):
    """All judges' word on one arm together."""

    judges: list[Text]
    """Aliases of the judges."""
    mean_score: Estimate
    """Mean score over problems."""
    bootstrap: Estimate
    """The same with the percentile bootstrap over problems, too narrow where few problems are decided."""


class ArmAccuracy(Section):
    """Correct answers of one arm, by the verifier."""

    n: Count
    """Answers."""
    base: Share | None
    """Share of correct answers before training; null without an answer."""
    tuned: Share | None
    """Share of correct answers after training; null without an answer."""
    difference: Estimate
    """Share after minus share before, over problems."""
    fixed: Count
    """Answers that are wrong before and correct after."""
    broken: Count
    """Answers that are correct before and wrong after."""
    mcnemar: McNemar
    """The exact test of the change."""


class ArmValue(Section):
    """An endpoint's T over all training seeds of an arm."""

    t: Share | None
    """The value; null without a problem."""
    n: Count
    """Problems of the endpoint for which the arm has every verdict."""
    by_seed: list[SeedValue]
    """The value at each training seed."""


class Arm(Section):
    """One arm, pooled over its training seeds with the problem as the unit."""

    arm: Text
    """Name of the arm."""
    kind: AnyArm
    """Kind of the arm."""
    draw: Count | None
    """Number of the layer draw; null for arms that are not drawn."""
    layers: Layers
    """Layers trained."""
    zero_update: bool
    """Whether the update is zero by construction, as in the sham arm."""
    shared_with_attributed: Count
    """Layers that are attributed ones."""
    n_pairs: Count
    """Preference pairs."""
    n_swapped: Count
    """Those of them with chosen and rejected swapped."""
    trained: Count | None
    """Trained parameters; null where they differ between training seeds."""
    trained_by_seed: list[Count]
    """Trained parameters at each training seed."""
    seeds: list[Integer]
    """Training seeds with a result."""
    tested: bool
    """Whether it is the attributed arm or a control of the test."""
    folders: list[Text]
    """Folder of each training seed, relative to the sweep."""
    judges: dict[str, ArmJudge]
    """Alias → a judge's word."""
    panel: ArmPanel
    """All judges together."""
    accuracy: ArmAccuracy
    """Correct answers."""
    live_share: Share
    """Smallest share of an adapter's parameters that is live in llama.cpp."""
    certificates_passed: bool
    """Whether all export certificates passed."""
    t: dict[str, ArmValue]
    """Name of the endpoint → the arm's value."""


class SweepLength(Section):
    """Whether a judge's choice goes with length, over all arms; equal answers are left out."""

    all: ArmLength
    """Over all judged comparisons."""
    equally_right: ArmLength
    """Over those in which both answers are correct or both are wrong."""


class PooledConsistency(Section):
    """How often a judge that is asked the same thing again says the same."""

    n_ballots: Count
    """Ballots with at least two valid replicates."""
    value: Share
    """Mean share of equal choices among their pairs."""


class SweepJudge(Section):
    """One judge over all arms and training seeds. They share base answers, so the figures have no interval."""

    judge: Text
    """Its alias."""
    model: Text
    """The model that it asks; empty for a judge that asks none."""
    family: Text
    """Who made the model."""
    n: Count
    """Comparisons."""
    n_equal: Count
    """Comparisons of two answers with the same text, which are not judged."""
    n_judged: Count
    """Comparisons with a valid answer in both orders."""
    counts: OutcomeCounts
    """Comparisons by outcome."""
    missing_rate: Share | None
    """Share of comparisons without a verdict; null without a comparison."""
    flip_rate: Share | None
    """Share of judged comparisons whose two orders disagree; null without one."""
    n_decided_ballots: Count
    """Ballots (one order of one comparison) that choose a side."""
    first_shown_share: Share | None
    """Share of those that choose the answer shown first; null without one."""
    self_consistency: PooledConsistency | None
    """How often it repeats itself; null where it was asked once."""
    length: SweepLength
    """Whether its choice goes with length."""
    canaries: CanaryCounts
    """Planted instructions."""


class VerifierAgreement(Section):
    """A judge against the outcome that correct and wrong answers give."""

    judge: Text
    """Alias of the judge."""
    n: Count
    """Judged comparisons."""
    agreement: Share | None
    """Share of them with the same outcome; null without one."""
    kappa: Bounded | None
    """Cohen's kappa; null without a comparison, or where one side always says the same."""


class SweepJudges(Section):
    """How far the judges can be trusted, over all arms."""

    panel: dict[str, SweepJudge]
    """Alias → a judge."""
    agreement: list[JudgePair]
    """Every two judges."""
    verifier: list[VerifierAgreement]
    """Each judge against the verifier."""
    families: list[SharedFamily]
    """Judges and observers that share a model family with another part of the run."""


class ArmCost(Section):
    """Time of one arm."""

    arm: Text
    """Name of the arm."""
    jobs: Count
    """Jobs with a result."""
    own_s: Seconds
    """Seconds of work that no other job shares."""
    time_s: Seconds
    """Seconds that its jobs ran."""


class StageCost(Section):
    """Time of one stage over all jobs."""

    stage: Text
    """Name of the stage."""
    made_s: Seconds
    """Seconds of work, shared work once."""


class LastPayment(Section):
    """What the last command paid."""

    paid_usd: Money | None
    """Cost of the calls made; null where calls were made and none has a known price."""
    calls: Count
    """Calls made."""
    unpriced: Count
    """Those of them without a known price."""
    reused: Count
    """Answers that the ledger had."""
    saved_usd: Money
    """What those cost when they were made."""
    uncertain_usd: Money
    """Most that can have been spent on attempts without an answer, which may have been billed."""


class SweepMoney(Section):
    """What the model calls behind these results cost, whenever they were made."""

    cost_usd: Money | None
    """Cost of the calls with a known price; null where calls were made and none has one."""
    calls: Count
    """Calls."""
    unpriced: Count
    """Those of them without a known price."""
    last: LastPayment | None
    """What the last command paid; null where no job kept a tally."""


class SweepCosts(Section):
    """Time and money of the sweep."""

    arms: list[ArmCost]
    """Arm by arm."""
    own_s: Seconds
    """Seconds of work that no two jobs share."""
    shared_s: Seconds
    """Seconds of work that several jobs use, counted once."""
    made_s: Seconds
    """Both."""
    alone_s: Seconds
    """Seconds that every job would have taken from an empty store."""
    saved_s: Number
    """`alone_s` − `made_s`."""
    hits_s: Seconds
    """Seconds of work that jobs found in the store, that of earlier commands included."""
    stages: list[StageCost]
    """Stage by stage."""
    money: SweepMoney | None
    """Money; null where no component asks a remote model."""
