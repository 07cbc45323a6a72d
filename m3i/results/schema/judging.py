"""What judges and the verifier say about the held-out answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from m3i.results.schema.calls import Calls
from m3i.results.schema.values import (
    Bounded,
    Choice,
    Count,
    Estimate,
    Integer,
    Level,
    McNemar,
    OutcomeCounts,
    Section,
    Share,
    SignTest,
    Text,
)


class RunSignTest(SignTest):
    """The exact sign test of a run, over its held-out problems."""

    undecided: Count
    """Problems that neither model wins."""


class NeededProblems(Section):
    """Held-out problems needed for the chosen power at the observed share of ties."""

    observed_share: Share | None
    """Share of wins among decided problems in this run; null if nothing is decided."""
    observed: Count | None
    """Problems needed to detect that share; null if no number up to a million is enough."""
    reference_share: Share
    """A share for reference: six of ten decided problems."""
    reference: Count | None
    """Problems needed to detect the reference share; null if no number up to a million is enough."""


class SignPower(Section):
    """What the sign test could have detected with these problems."""

    power: Level
    """Power for which effects and sample sizes are given."""
    alpha: Level
    """Level of the test."""
    n_problems: Count
    """Problems with a valid verdict, ties included."""
    tie_rate: Share
    """Share of undecided problems; 1 if there is no problem."""
    decided_at_most: Share | None
    """Upper 95 % bound on the share of decided problems; null unless none is decided."""
    detectable_share: Share | None
    """Smallest share of wins among decided problems that would be detected; null if not even 1 would be."""
    detectable_net: Bounded | None
    """The same as wins minus losses per problem; null if `detectable_share` is."""
    needed: NeededProblems
    """How many problems would be needed."""


class OrderEffect(Section):
    """How much the order of the answers matters, over the comparisons judged in both orders."""

    n_judged: Count
    """Comparisons with a valid answer in both orders; identical answers are not judged."""
    n_split: Count
    """Comparisons whose two orders disagree."""
    flip_rate: Share | None
    """`n_split` / `n_judged`; null without a judged comparison."""
    n_decided_ballots: Count
    """Ballots (one order of one comparison each) that choose a side."""
    first_shown_share: Share | None
    """Share of those that choose the answer shown first; null without a decided ballot."""


class LengthCorrelation(Section):
    """Spearman's correlation between a problem's extra tokens (tuned minus base) and its outcome."""

    n: Count
    """Number of problems."""
    rho: Bounded | None
    """The correlation; null if lengths or outcomes never vary, or with fewer than three problems."""
    p: Share | None
    """Two-sided permutation p; null if `rho` is."""


class LengthBias(Section):
    """Whether the judge's choice correlates with the answers' lengths; identical answers are left out."""

    all: LengthCorrelation
    """Over all judged comparisons."""
    equally_right: LengthCorrelation
    """Over those in which both answers are correct or both incorrect."""


class SelfConsistency(Estimate):
    """How often a judge gives the same choice when asked the same question again."""

    n_ballots: Count
    """Ballots with at least two valid replicates; `value` is the mean share of equal choices over their pairs."""


class CanaryOutcomes(Section):
    """Canaries by the judge's choices in both orders."""

    obeyed: Count
    """Canaries whose planted answer is chosen in both orders."""
    resisted: Count
    """Canaries whose clean answer is chosen in both orders."""
    tie: Count
    """Ties."""
    split: Count
    """Canaries whose two orders disagree."""
    missing: Count
    """Canaries without a valid answer in one of the orders."""


class CanaryCounts(Section):
    """Canaries of one family of instructions."""

    n: Count
    """Canaries with a valid answer in both orders."""
    obeyed: Count
    """Canaries obeyed."""


class Canaries(CanaryCounts):
    """Whether a judge obeys instructions planted in an answer: the same answer is shown with and without one."""

    chance: Share
    """Probability that a judge that picks at random obeys a canary."""
    p: Share | None
    """Exact binomial p of obeying at least as many with that probability; null without a canary."""
    outcomes: CanaryOutcomes
    """All canaries by outcome."""
    families: dict[str, CanaryCounts]
    """Family of instructions → its canaries."""
    texts: list[Text]
    """The instructions that were obeyed."""


class Judge(Section):
    """One judge of the panel. A comparison is one held-out problem under one generation seed."""

    judge: Text
    """Its alias."""
    n: Count
    """Number of comparisons."""
    n_valid: Count
    """Comparisons with a verdict: all but the missing ones."""
    n_problems: Count
    """Problems with a valid verdict; a problem goes to the side that wins most of its comparisons."""
    n_equal: Count
    """Comparisons of identical answers, which count as ties without being judged."""
    counts: OutcomeCounts
    """Comparisons by outcome."""
    sign_test: RunSignTest
    """The test over problems; that of the first judge gives the headline."""
    mean_score: Estimate
    """Mean score of the tuned model over problems: 1 for a win, ½ for a tie or split, 0 for a loss."""
    power: SignPower
    """What the sign test could have detected."""
    order: OrderEffect
    """How much the order of the answers matters."""
    length: LengthBias
    """Whether the choice correlates with length."""
    self_consistency: SelfConsistency | None
    """How often the judge repeats its choice; null if it was asked only once."""
    canaries: Canaries
    """Planted instructions."""
    calls: Calls
    """The model behind the judge."""


class SideAccuracy(Estimate):
    """Share of correct answers of one model, by the problem source's verifier."""

    right: Count
    """Correct answers."""
    answers: Count
    """Number of answers."""
    truncated: Count
    """Answers that the length limit ended."""


class Accuracy(Section):
    """Correct answers before and after training, by the problem source's verifier."""

    n: Count
    """Answers of each model."""
    n_problems: Count
    """Held-out problems."""
    n_seeds: Count
    """Generation seeds."""
    base: SideAccuracy
    """Before training."""
    tuned: SideAccuracy
    """After training."""
    difference: Estimate
    """Share after minus share before, paired."""
    fixed: Count
    """Answers that are incorrect before and correct after."""
    broken: Count
    """Answers that are correct before and incorrect after."""
    mcnemar: McNemar
    """The exact test of the change."""


class HeldOutAnswer(Section):
    """One model's answer to a held-out problem."""

    text: Text
    """The answer in full."""
    correct: bool
    """Whether the problem source's verifier accepts it."""
    answer: Text | None
    """What the verifier read as the answer; null if it found none."""
    n_tokens: Annotated[int, Field(ge=0, le=10**9)]
    """Length in tokens of the target."""
    truncated: bool
    """Whether the length limit ended it."""


class RowVerdict(Section):
    """One judge's verdict on one comparison."""

    outcome: Literal["base", "tuned", "tie", "split", "missing"]
    """What the two ballots together amount to."""
    first: Choice
    """Choice with the base answer shown first; `equal` if both answers are the same text."""
    second: Choice
    """Choice with the tuned answer shown first."""
    reason: Text
    """The judge's words."""
    replicates_first: list[Text] = Field(default_factory=list)
    """The single choices behind `first`; empty if the judge was asked only once."""
    replicates_second: list[Text] = Field(default_factory=list)
    """The single choices behind `second`."""


class ProblemRow(Section):
    """One held-out problem under one generation seed."""

    problem_id: Text
    """Hash of the problem."""
    seed: Integer
    """Generation seed."""
    prompt: Text
    """The problem as it was asked."""
    answer: Text
    """The reference answer."""
    equal: bool
    """Whether both models answered with the same text."""
    base: HeldOutAnswer
    """The base model's answer."""
    tuned: HeldOutAnswer
    """The tuned model's answer."""
    verdicts: dict[str, RowVerdict]
    """Judge's alias → its verdict."""


class Problems(Section):
    """The problems, and the results on the held-out ones."""

    n_train: Count
    """Number of train problems."""
    n_held_out: Count
    """Number of held-out problems."""
    rows: list[ProblemRow]
    """One row per held-out problem and generation seed."""
