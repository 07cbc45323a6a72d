"""What observers found in the train traces, compared with the verifier and with each other."""

from __future__ import annotations

from m3i.results.schema.calls import Calls
from m3i.results.schema.values import (
    Bounded,
    Count,
    Estimate,
    Layers,
    Level,
    Number,
    Pair,
    Section,
    Share,
    Size,
    Text,
)


class Citations(Section):
    """How often an observer quotes text that is not in the trace."""

    accepted: Count
    """Findings whose quote is in the trace."""
    hallucinated: Count
    """Findings dropped because their quote is not in the trace."""
    ambiguous: Count
    """Findings dropped because their quote occurs there more than once and no step tells which is meant."""
    rate: Estimate
    """`hallucinated` as a share of all three."""


class CallAccuracy(Section):
    """An observer's calls (failing or not) against the verifier's; traces without a valid audit are left out."""

    n: Count
    """Audited traces."""
    true_positive: Count
    """Incorrect traces that are flagged."""
    false_positive: Count
    """Correct traces that are flagged."""
    false_negative: Count
    """Incorrect traces that are not flagged."""
    true_negative: Count
    """Correct traces that are not flagged."""
    precision: Estimate
    """Share of flagged traces that are incorrect."""
    recall: Estimate
    """Share of incorrect traces that are flagged."""
    specificity: Estimate
    """Share of correct traces that are not flagged."""


class Observer(Section):
    """One observer: what it found, and how that compares with the verifier."""

    observer: Text
    """Its alias."""
    n_audited: Count
    """Traces with a valid audit."""
    n_missing: Count
    """Traces without one."""
    missing_reasons: dict[str, Count]
    """The most frequent reasons → traces."""
    n_findings: Count
    """Number of findings."""
    n_flagged: Count
    """Traces with a finding."""
    kinds: dict[str, Count]
    """Kind of failure → findings."""
    wrong_audited: Count
    """Incorrect traces audited."""
    wrong_flagged: Count
    """Incorrect traces with a finding."""
    right_audited: Count
    """Correct traces audited."""
    right_flagged: Count
    """Correct traces with a finding."""
    layers_named: dict[str, Count]
    """Layer that the observer suspects → findings."""
    citations: Citations
    """Invented quotes."""
    accuracy: CallAccuracy
    """Its calls against the verifier's."""
    calls: Calls
    """The model behind it."""
    notes: list[Text]
    """Facts about the audit, in words."""


class CallAgreement(Section):
    """Whether two observers call the same traces failing."""

    n: Count
    """Traces that both audited."""
    both: Count
    """Traces that both flag."""
    only_first: Count
    """Traces that only the first flags."""
    only_second: Count
    """Traces that only the second flags."""
    neither: Count
    """Traces that neither flags."""
    observed: Share | None
    """Share of equal calls; null without a trace."""
    expected: Share | None
    """The same for two independent observers with these margins; null without a trace."""
    kappa: Bounded | None
    """Cohen's kappa; null without a trace, or if both always make the same single call."""
    p: Share | None
    """One-sided permutation p of at least as many texts flagged by both; null without a trace."""


class SpanAgreement(Section):
    """Whether two observers point to the same tokens."""

    n_traces: Count
    """Traces that both flag."""
    f1: Share | None
    """Token-level F1 over those traces; null without one."""
    expected: Size | None
    """F1 by chance, with each observer's spans slid along the trace; null without a trace."""
    p: Share | None
    """Permutation p of an F1 as high; null without a trace."""
    alpha: Number | None
    """Krippendorff's alpha of the labels of all tokens; null if all tokens have the same label."""
    n_tokens: Count
    """Tokens behind `alpha`."""


class OverallLayers(Section):
    """Two observers' most-named layers."""

    first: Layers
    """The first observer's, as many as it names per trace on average."""
    second: Layers
    """The second observer's."""
    shared: Count
    """Layers in both."""
    expected: Size
    """Layers that random picks would share on average."""
    p: Share
    """Hypergeometric p."""
    p_holm: Share
    """`p`, Holm-corrected over all pairs of observers."""


class LayersWithinTraces(Section):
    """Overlap of the layers that two observers name in the same trace."""

    shared: Size
    """Mean number of shared layers per trace."""
    expected_random: Size
    """The same for random picks."""
    expected_shuffled: Size
    """The same when the traces are shuffled."""
    p: Share
    """Permutation p against shuffled traces."""
    p_holm: Share
    """`p`, Holm-corrected over all pairs of observers."""


class NamedLayerAgreement(Section):
    """Whether two observers suspect the same layers."""

    n_traces: Count
    """Traces in which both name layers."""
    overall: OverallLayers | None
    """Over all traces; null without one."""
    within: LayersWithinTraces | None
    """Trace by trace; null without one."""


class ObserverPair(Section):
    """Agreement of two observers."""

    observers: Pair
    """Their aliases."""
    traces: CallAgreement
    """Agreement on which traces fail."""
    spans: SpanAgreement
    """Agreement on tokens."""
    layers: NamedLayerAgreement
    """Agreement on layers."""


class Agreement(Section):
    """Agreement of every pair of observers, each figure with its value by chance."""

    pairs: list[ObserverPair]
    """One row per pair of observers."""


class PairErrors(Section):
    """How often two observers err on the same traces."""

    observers: Pair
    """Their aliases."""
    n: Count
    """Traces that both audited."""
    first_errors: Count
    """Errors of the first observer against the verifier."""
    second_errors: Count
    """Errors of the second."""
    shared_errors: Count
    """Traces on which both err."""
    expected_errors: Size
    """The same for observers that err independently given the truth."""
    shared_share: Share | None
    """`shared_errors` as a share of the traces on which either errs; null if neither does."""
    expected_share: Size | None
    """The same for independent observers; null if neither errs."""
    phi_marginal: Bounded | None
    """Correlation of the two error vectors; if null, `reason` says why."""
    phi_given_truth: Bounded | None
    """The same given the truth, that is within incorrect and within correct traces; if null, `reason` says why."""
    p: Share | None
    """Permutation p of at least as many shared errors given the truth; if null, `reason` says why."""
    reason: Text
    """Why a number is null; empty otherwise."""
    p_holm: Share | None
    """`p`, Holm-corrected over the pairs; null if `p` is."""


class Range(Section):
    """A number with an interval over problems."""

    value: Number | None
    """The number; null if it cannot be computed."""
    low: Number | None
    """Lower end of the interval; null if none can be given."""
    high: Number | None
    """Upper end of the interval; null if none can be given."""


class PanelErrors(Section):
    """How many independent observers the panel is worth."""

    observers: list[Text]
    """Aliases of the observers that are counted."""
    left_out: dict[str, Text]
    """Alias of an observer that is not counted → why."""
    n_traces: Count
    """Traces that all of them audited."""
    n_problems: Count
    """Problems that those traces answer."""
    level: Level
    """Confidence level of the intervals."""
    mean_phi: Range
    """Mean of `phi_given_truth` over all pairs of observers."""
    n_eff: Range
    """Effective number of independent observers, n / (1 + (n − 1) `mean_phi`)."""
    degenerate: bool
    """Whether every bootstrap draw gives the same number, so that the interval says nothing about the uncertainty."""
    reason: Text
    """Why a number is null, or the interval degenerate; empty otherwise."""


class SharedErrors(Section):
    """Whether observers make the same mistakes."""

    pairs: list[PairErrors]
    """One row per pair of observers."""
    panel: PanelErrors
    """All observers together."""


class PlaceAccuracy(Section):
    """An observer's findings against the first incorrect step of each trace, as the checker quotes it."""

    n_traces: Count
    """Traces that both flag."""
    hit: Estimate
    """Share of those traces in which the findings overlap."""
    precision: Share | None
    """Share of the observer's tokens that the checker marks too; null without a trace."""
    recall: Share | None
    """Share of the checker's tokens that the observer marks too; null without a trace."""
    f1: Share | None
    """Harmonic mean of the two; null without a trace."""


class Places(Section):
    """Where observers locate failures, compared with the checker."""

    truth: Text
    """Alias of the observer that recomputes every step; empty if the panel has none."""
    observers: dict[str, PlaceAccuracy]
    """Alias of every other observer → its accuracy."""
