"""The statistics of a sweep's verdict against closed forms, published values, scipy and statsmodels.

Numbers marked statsmodels were computed once with statsmodels 0.15.0.
"""

import importlib.util
import itertools
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from m3i.statistics import (
    control_effect,
    controls_for,
    detectable_mean,
    detectable_shift,
    distinct_controls,
    equivalence,
    gatekept,
    holm,
    mean_score,
    p_floor,
    power_mean,
    power_randomization,
    randomization_test,
    required_controls,
    required_n,
    required_problems,
    score_error,
    sign_test,
    tied_effect,
    tost,
    variance_split,
)
from m3i.statistics.effect import two_way_error
from m3i.statistics.variance import mean_squares

ALTERNATIVES = ("greater", "less", "two-sided")
HUNDREDTHS = st.integers(-20, 20).map(lambda i: i / 100)
ARMS = st.lists(HUNDREDTHS, min_size=2, max_size=25)

# -- randomization test -------------------------------------------------------------------------


def test_best_of_twenty_reaches_the_floor_and_a_tie_counts_against():
    controls = [i / 100 for i in range(19)]
    best = randomization_test(attributed=0.5, controls=controls)
    assert (best.p, best.floor, best.rank, best.percentile) == (0.05, 0.05, 1, 1.0)
    tied = randomization_test(attributed=0.18, controls=controls)
    assert (tied.p, tied.n_extreme, tied.rank) == (0.1, 1, 2)
    assert tied.percentile == 18.5 / 19
    worst = randomization_test(attributed=-1, controls=controls)
    assert (worst.p, worst.rank, worst.percentile) == (1.0, 20, 0.0)
    assert randomization_test(attributed=-1, controls=controls, alternative="less").p == 0.05


def test_the_last_bits_of_a_mean_are_no_difference():
    assert randomization_test(attributed=0.1 + 0.2, controls=[0.3]).p == 1.0
    assert randomization_test(attributed=0.3, controls=[0.1 + 0.2], alternative="less").p == 1.0


@given(arms=ARMS, alternative=st.sampled_from(ALTERNATIVES), alpha=st.sampled_from((0.05, 0.1, 0.3, 0.5)))
def test_the_test_is_exact_over_which_arm_is_the_attributed_one(arms, alternative, alpha):
    """Whatever the values: of R + 1 arms that may change places, at most a share alpha would be called significant."""
    p_values = [
        randomization_test(attributed=arms[i], controls=arms[:i] + arms[i + 1 :], alternative=alternative).p
        for i in range(len(arms))
    ]
    assert sum(p <= alpha for p in p_values) <= alpha * len(arms) + 1e-9


@given(arms=ARMS, alternative=st.sampled_from(ALTERNATIVES))
def test_p_is_between_floor_and_one_and_knows_no_order_or_unit(arms, alternative):
    test = randomization_test(attributed=arms[0], controls=arms[1:], alternative=alternative)
    assert p_floor(len(arms) - 1) == test.floor <= test.p <= 1
    moved = [3 * a + 7 for a in arms]
    assert randomization_test(attributed=moved[0], controls=moved[:0:-1], alternative=alternative).p == test.p
    mirrored = [-a for a in arms]
    other = {"greater": "less", "less": "greater"}.get(alternative, alternative)
    assert randomization_test(attributed=mirrored[0], controls=mirrored[1:], alternative=other).p == test.p


@given(arms=ARMS, gain=st.integers(0, 20))
def test_a_better_attributed_arm_never_has_a_larger_p(arms, gain):
    p = [randomization_test(attributed=arms[0] + g / 100, controls=arms[1:]).p for g in (0, gain)]
    assert p[1] <= p[0]


@pytest.mark.parametrize("attributed", [0.31, 0.55, 0.7])
def test_p_is_scipys_exact_rank_test_of_one_against_many(attributed):
    controls = [0.3, 0.41, 0.5, 0.52, 0.6, 0.61, 0.65]
    exact = stats.mannwhitneyu([attributed], controls, alternative="greater", method="exact")
    assert randomization_test(attributed=attributed, controls=controls).p == pytest.approx(exact.pvalue)


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(ValueError, match="no control"):
        randomization_test(attributed=0.5, controls=[])
    with pytest.raises(ValueError, match="not a finite number"):
        randomization_test(attributed=0.5, controls=[math.nan])
    with pytest.raises(ValueError, match="alternative = 'more'"):
        randomization_test(attributed=0.5, controls=[0.4], alternative="more")


@pytest.mark.parametrize(("alpha", "controls"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.03, 33), (0.001, 999)])
def test_controls_for_a_floor(alpha, controls):
    assert controls_for(alpha) == controls
    assert p_floor(controls) <= alpha + 1e-12
    assert p_floor(controls - 1) > alpha


def test_controls_that_make_no_valid_p_are_named():
    good = distinct_controls(attributed=[2, 1, 3], controls=[[4, 1, 2], [5, 6, 7]], population=range(1, 9))
    assert good == ((1, 2, 4), (5, 6, 7))
    for controls, said in (
        ([[4, 5, 6], [1, 3, 2]], r"equal the attributed set: \(1, 2, 3\)"),
        ([[4, 5, 6], [6, 5, 4], [1, 2, 4]], r"more than once: \(4, 5, 6\);"),
        ([[4, 5]], r"differ in size from the attributed \(1, 2, 3\): \(4, 5\)"),
        ([[4, 5, 5]], r"hold a layer twice: \(4, 5, 5\)"),
        ([[4, 5, 9]], r"outside the candidates: \(4, 5, 9\)"),
    ):
        with pytest.raises(ValueError, match=said):
            distinct_controls(attributed=[1, 2, 3], controls=controls, population=range(1, 9))


def test_controls_that_all_avoid_the_attributed_layers_are_refused():
    """19 draws of 3 of 11 that miss the attributed 3: the population would do that once in 10 million times."""
    free = list(itertools.combinations(range(3, 11), 3))[:19]
    with pytest.raises(ValueError, match=r"all 19 controls avoid the attributed layers \(0, 1, 2\)"):
        distinct_controls(attributed=[0, 1, 2], controls=free, population=range(11))
    assert len(distinct_controls(attributed=[0, 1, 2], controls=[*free, (0, 3, 4)], population=range(11))) == 20
    # 2 of 40 layers: avoiding both is what most draws do.
    rare = list(itertools.combinations(range(2, 40), 2))[:19]
    assert len(distinct_controls(attributed=[0, 1], controls=rare, population=range(40))) == 19


# -- effect against controls --------------------------------------------------------------------


def test_one_training_seed_is_the_paired_t_interval_over_problems():
    rng = np.random.default_rng(0)
    a_P, c_RP = rng.normal(size=30), rng.normal(size=(4, 30))
    effect = control_effect(attributed_SP=a_P[None], controls_RSP=c_RP[:, None])
    exact = stats.ttest_1samp(a_P - c_RP.mean(axis=0), 0).confidence_interval()
    assert (effect.difference.low, effect.difference.high) == pytest.approx((exact.low, exact.high))
    assert (effect.n_seeds, effect.df, effect.difference.n) == (1, 29, 30)


def test_seeds_alone_or_problems_alone_give_their_own_t_interval():
    rng = np.random.default_rng(1)
    by_seed, by_problem = rng.normal(size=4), rng.normal(size=25)
    for d_SP, values in (
        (np.repeat(by_seed[:, None], 25, axis=1), by_seed),
        (np.repeat(by_problem[None], 4, axis=0), by_problem),
    ):
        effect = control_effect(attributed_SP=d_SP, controls_RSP=np.zeros((2, 4, 25)))
        exact = stats.ttest_1samp(values, 0).confidence_interval()
        assert (effect.difference.low, effect.difference.high) == pytest.approx((exact.low, exact.high))
        assert effect.df == pytest.approx(len(values) - 1)


def test_two_way_mean_squares_are_those_of_the_anova_table():
    """statsmodels: mean squares 0.018 (seeds), 0.141 (problems), 0.023 (rest)."""
    d_SP = np.array([[0.1, 0.3, -0.2, 0.0, 0.4], [0.2, 0.1, -0.1, 0.1, 0.6], [0.0, 0.4, -0.3, 0.1, 0.1]])
    mean, se, df = two_way_error(d_SP)
    total = 0.018 + 0.141 - 0.023
    assert mean == pytest.approx(d_SP.mean())
    assert se == pytest.approx(math.sqrt(total / 15))
    assert df == pytest.approx(total**2 / (0.018**2 / 2 + 0.141**2 / 4 + 0.023**2 / 8))


@given(seed=st.integers(0, 10_000), seeds=st.integers(1, 5), problems=st.integers(2, 12))
def test_the_effect_mirrors_scales_and_ignores_what_arms_share(seed, seeds, problems):
    rng = np.random.default_rng(seed)
    a_SP, c_RSP = rng.integers(3, size=(seeds, problems)) / 2, rng.integers(3, size=(5, seeds, problems)) / 2
    one = control_effect(attributed_SP=a_SP, controls_RSP=c_RSP)
    shared_SP = rng.normal(size=(seeds, problems))
    same = control_effect(attributed_SP=a_SP + shared_SP, controls_RSP=c_RSP + shared_SP)
    mirrored = control_effect(attributed_SP=-2 * a_SP, controls_RSP=-2 * c_RSP)
    interval = (one.difference.low, one.difference.high)
    assert (same.difference.low, same.difference.high) == pytest.approx(interval, abs=1e-9)
    assert (mirrored.difference.high, mirrored.difference.low) == pytest.approx([-2 * x for x in interval], abs=1e-9)
    assert one.df >= max(1, seeds - 1)
    json.dumps(asdict(one), allow_nan=False)


def test_the_standardised_effect_counts_in_spreads_of_the_controls():
    c_RSP = np.array([0.4, 0.5, 0.6])[:, None, None] * np.ones((3, 2, 4))
    effect = control_effect(attributed_SP=np.full((2, 4), 0.7), controls_RSP=c_RSP)
    assert (effect.sd_controls, effect.standardised) == pytest.approx((0.1, 2.0))
    assert effect.difference.degenerate
    alike = control_effect(attributed_SP=np.full((2, 4), 0.7), controls_RSP=c_RSP[1:2])
    assert (alike.sd_controls, alike.standardised) == (None, None)


def test_scores_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected \\(seeds, problems\\)"):
        control_effect(attributed_SP=np.zeros((2, 4)), controls_RSP=np.zeros((3, 2, 5)))
    with pytest.raises(ValueError, match="one problem"):
        control_effect(attributed_SP=np.zeros((2, 1)), controls_RSP=np.zeros((3, 2, 1)))
    with pytest.raises(ValueError, match="missing"):
        control_effect(attributed_SP=np.full((2, 4), np.nan), controls_RSP=np.zeros((3, 2, 4)))


# -- mean score ---------------------------------------------------------------------------------


def named(values):
    return [f"p{i}" for i in range(len(values))]


@pytest.mark.parametrize(("wins", "losses", "ties"), [(3, 3, 44), (9, 2, 189), (0, 1, 30)])
def test_the_standard_error_is_bonett_and_prices(wins, losses, ties):
    """Bonett & Price 2012: p12 = (wins + 1) / (n + 2), p21 = (losses + 1) / (n + 2); scores are half as wide."""
    scores = [1.0] * wins + [0.0] * losses + [0.5] * ties
    error = score_error(problems=named(scores), scores=scores)
    m = len(scores) + 2
    p12, p21 = (wins + 1) / m, (losses + 1) / m
    assert error.centre - 0.5 == pytest.approx((p12 - p21) / 2)
    assert error.se == pytest.approx(math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (m - 1)) / 2)
    x = np.array([*scores, 1.0, 0.0])
    assert error.bend == pytest.approx(stats.skew(x) / (3 * math.sqrt(m)))
    assert error.sd == pytest.approx(x.std(ddof=1))


def test_without_skewness_it_is_a_t_interval():
    scores = [1.0] * 5 + [0.0] * 5 + [0.5] * 90
    estimate = mean_score(problems=named(scores), scores=scores)
    half = stats.t.ppf(0.975, 101) * math.sqrt(12 * 0.25 / 101 / 102)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


@given(
    scores=st.lists(st.sampled_from((0.0, 0.5, 0.5, 0.5, 1.0)), min_size=1, max_size=60),
    quantile=st.floats(-5, 5),
)
def test_limit_is_the_inverse_of_t_value(scores, quantile):
    error = score_error(problems=named(scores), scores=scores)
    assert error.t_value(error.limit(quantile)) == pytest.approx(quantile, abs=1e-5)
    assert error.limit(quantile) >= error.limit(quantile + 0.5) - 1e-12


@given(st.lists(st.sampled_from((0.0, 0.5, 1.0)), min_size=1, max_size=60))
def test_the_interval_mirrors_holds_the_mean_and_ignores_copies_and_order(scores):
    one = mean_score(problems=named(scores), scores=scores)
    assert 0 <= one.low <= one.value <= one.high <= 1
    mirrored = mean_score(problems=named(scores), scores=[1 - s for s in scores])
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - one.high, 1 - one.low), abs=1e-9)
    copied = mean_score(problems=named(scores) * 3, scores=scores * 3)
    assert (copied.low, copied.high, copied.n) == pytest.approx((one.low, one.high, len(scores)), abs=1e-9)
    assert mean_score(problems=named(scores), scores=scores[::-1]).low == pytest.approx(one.low, abs=1e-9)


def test_only_ties_have_the_exact_width():
    estimate = mean_score(problems=named([0.5] * 40), scores=[0.5] * 40)
    assert estimate.degenerate
    assert (1 - 2 * (estimate.high - 0.5)) ** 40 == pytest.approx(0.025)
    nothing = mean_score(problems=[], scores=[])
    assert (nothing.value, nothing.low, nothing.high) == (None, 0.0, 1.0)
    json.dumps([asdict(estimate), asdict(nothing)], allow_nan=False)


def test_unequal_rows_weigh_by_their_number():
    error = score_error(problems=["a", "b", "b", "b"], scores=[1.0, 0.5, 0.0, 0.0])
    assert error.mean == pytest.approx(0.375)
    assert error.n == 2


def test_scores_off_the_scale_are_refused():
    for problems, scores, said in (
        (["a"], [1.5], "outside 0.0 to 1.0"),
        (["a"], [math.nan], "outside"),
        ([], [], "no"),
    ):
        with pytest.raises(ValueError, match=said):
            score_error(problems=problems, scores=scores)
    with pytest.raises(ValueError, match="1 problems for 2 scores"):
        mean_score(problems=["a"], scores=[0.5, 0.5])


@pytest.mark.parametrize(("decided", "share"), [(0.05, 0.5), (0.05, 0.9), (0.15, 0.7)])
def test_the_mean_score_covers_the_truth_at_85_to_95_percent_ties(decided, share):
    """1,500 simulated runs of 200 problems, two clustered answers each; noise is ± 1.1 % at two standard errors."""
    rng, hits, runs = np.random.default_rng(5), 0, 1500
    problems = [f"p{i}" for i in range(200) for _ in range(2)]
    for _ in range(runs):
        live_P = rng.random((200, 1)) < decided
        won_PG = np.where(rng.random((200, 2)) < 0.7, rng.random((200, 1)) < share, rng.random((200, 2)) < share)
        scores = np.where(live_P, won_PG, 0.5).ravel().tolist()
        estimate = mean_score(problems=problems, scores=scores)
        hits += estimate.low <= 0.5 + decided * (share - 0.5) <= estimate.high
    assert 0.925 <= hits / runs <= 0.98


@pytest.mark.parametrize(("wins", "losses"), [(9, 1), (19, 1), (18, 2), (5, 0)])
def test_without_ties_the_mean_score_is_as_sure_as_the_sign_test(wins, losses):
    """Hall's cubic, made for many ties, would give 0 to 1 for nine wins and a loss."""
    scores = [1.0] * wins + [0.0] * losses
    estimate = mean_score(problems=named(scores), scores=scores)
    assert (estimate.low > 0.5) == (sign_test(wins=wins, losses=losses).p < 0.1)


# -- equivalence --------------------------------------------------------------------------------


def test_tost_is_statsmodels_ttost():
    """statsmodels DescrStatsW.ttost_mean: p = 7.3539e-05 and 0.02436162 at ± 0.03."""
    x = np.array([0.02, -0.01, 0.04, 0.0, 0.03, -0.02, 0.05, 0.01, 0.0, 0.02])
    found = tost(value=x.mean(), se=stats.sem(x), df=9, margin=0.03)
    assert (found.p_lower, found.p_upper) == pytest.approx((7.353888361806842e-05, 0.024361616622611996))
    assert found.p == found.p_upper
    assert found.equivalent
    interval = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@given(
    scores=st.lists(st.sampled_from((0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0)), min_size=1, max_size=80),
    margin=st.floats(0.01, 0.4),
    alpha=st.sampled_from((0.01, 0.05, 0.2)),
)
def test_equivalence_holds_where_the_interval_lies_within_the_margin(scores, margin, alpha):
    found = equivalence(problems=named(scores), scores=scores, margin=margin, alpha=alpha)
    slack = min(found.low - (0.5 - margin), 0.5 + margin - found.high)
    assert found.equivalent == (slack >= 0) or abs(slack) < 1e-9
    assert 0 <= found.p <= 1
    wider = equivalence(problems=named(scores), scores=scores, margin=margin + 0.05, alpha=alpha)
    assert wider.p <= found.p + 1e-9


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (9, 2), (30, 31)])
def test_the_equivalence_interval_is_that_of_the_mean_at_one_minus_two_alpha(wins, losses):
    scores = [1.0] * wins + [0.0] * losses + [0.5] * 100
    found = equivalence(problems=named(scores), scores=scores, margin=0.1, alpha=0.05)
    interval = mean_score(problems=named(scores), scores=scores, level=0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(("n", "shown"), [(12, False), (28, False), (30, True), (200, True)])
def test_ties_alone_prove_only_what_their_number_can(n, shown):
    found = equivalence(problems=named([0.5] * n), scores=[0.5] * n, margin=0.05)
    assert found.p == pytest.approx(0.9**n)
    assert found.equivalent is shown


def test_margins_that_mean_nothing_are_refused():
    for margin in (0.0, 0.5, -1.0):
        with pytest.raises(ValueError, match="margin"):
            equivalence(problems=["a"], scores=[0.5], margin=margin)
    for bad in ({"se": 0.0}, {"df": 0.0}, {"margin": 0.0}, {"alpha": 0.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            tost(**({"value": 0.0, "se": 1.0, "df": 9.0, "margin": 1.0} | bad))


# -- power --------------------------------------------------------------------------------------


def test_power_of_the_mean_is_the_published_one():
    """G*Power 3.1 and statsmodels TTestPower: d = 0.5 needs n = 34 (power 0.8078); d = 0.2 at 90 % needs 265."""
    assert power_mean(effect=0.5, sd=1, n=34) == pytest.approx(0.8077775, abs=1e-6)
    assert power_mean(effect=0.3, sd=1, n=40) == pytest.approx(0.4565221, abs=1e-6)
    assert power_mean(effect=-0.1, sd=1, n=600, alpha=0.01) == pytest.approx(0.4470489, abs=1e-6)
    assert required_problems(effect=0.5, sd=1) == 34
    assert required_problems(effect=0.2, sd=1, power=0.9) == 265
    assert detectable_mean(sd=1, n=200) == pytest.approx(0.1990647, abs=1e-6)


def test_six_to_four_at_two_thirds_ties_agrees_with_the_sign_test():
    shift, sd = tied_effect(share=0.6, tie_rate=0.67)
    values, chances = np.array([1, 0.5, 0]), np.array([0.33 * 0.6, 0.67, 0.33 * 0.4])
    assert shift == pytest.approx(values @ chances - 0.5)
    assert sd == pytest.approx(math.sqrt(values**2 @ chances - (values @ chances) ** 2))
    n = required_problems(effect=shift, sd=sd)
    assert n == 589
    assert required_n(share=0.6, tie_rate=0.67) == pytest.approx(n, rel=0.06)  # 619: a discrete test wastes some


@given(effect=st.floats(0.02, 0.5), sd=st.floats(0.05, 0.5))
def test_required_problems_is_where_power_crosses(effect, sd):
    n = required_problems(effect=effect, sd=sd)
    assert power_mean(effect=effect, sd=sd, n=n) >= 0.8
    assert power_mean(effect=effect, sd=sd, n=n - 1) < 0.8
    assert detectable_mean(sd=sd, n=max(n, 2)) <= effect + 1e-9


def test_questions_without_an_answer():
    assert required_problems(effect=0.0, sd=1) is None
    assert required_problems(effect=1e-4, sd=1) is None
    assert detectable_mean(sd=1, n=1) is None
    assert power_mean(effect=9.0, sd=1, n=50_000) == 1.0
    for bad in ({"sd": 0.0}, {"alpha": 1.0}, {"power": 0.01}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            detectable_mean(**({"sd": 1.0, "n": 10} | bad))


@pytest.mark.parametrize(("controls", "alpha"), [(19, 0.05), (39, 0.05), (99, 0.01), (29, 0.05)])
def test_sets_that_are_alike_give_the_level_itself(controls, alpha):
    """With no variance between sets all arms are exchangeable: the power at no effect is floor(alpha (R+1)) / (R+1)."""
    power = power_randomization(effect=0.0, between=0.0, within=2.0, controls=controls, alpha=alpha)
    assert power == pytest.approx(math.floor(alpha * (controls + 1) + 1e-9) / (controls + 1), abs=1e-6)


def test_power_of_the_randomization_test_in_closed_form():
    exact = stats.norm.cdf(2.0) ** 19  # a set without noise: all 19 controls must stay below it
    assert power_randomization(effect=2.0, between=1.0, within=0.0, controls=19) == pytest.approx(exact)
    assert power_randomization(effect=9.0, between=1.0, within=1.0, controls=18) == 0.0
    limit = stats.norm.sf((stats.norm.ppf(0.95) * math.sqrt(2) - 3) / 1)
    many = power_randomization(effect=3.0, between=1.0, within=1.0, controls=9999)
    assert many == pytest.approx(limit, abs=6e-3)


def test_power_of_the_randomization_test_is_that_of_the_test():
    rng = np.random.default_rng(2)
    hits = sum(
        randomization_test(attributed=rng.normal(2, 0.6), controls=rng.normal(0, math.hypot(1, 0.6), 19)).p <= 0.05
        for _ in range(4000)
    )
    told = power_randomization(effect=2.0, between=1.0, within=0.36, controls=19)
    assert hits / 4000 == pytest.approx(told, abs=0.025)


@pytest.mark.parametrize("effect", [2.2, 2.6, 4.0])
def test_required_controls_and_detectable_shift_are_where_power_crosses(effect):
    of = {"between": 1.0, "within": 0.2}
    controls = required_controls(effect=effect, **of)
    assert (controls + 1) % 20 == 0
    assert power_randomization(effect=effect, controls=controls, **of) >= 0.8
    assert controls == 19 or power_randomization(effect=effect, controls=controls - 20, **of) < 0.8
    shift = detectable_shift(controls=controls, **of)
    assert shift <= effect
    assert power_randomization(effect=shift, controls=controls, **of) == pytest.approx(0.8, abs=1e-6)


def test_more_controls_do_not_replace_less_noise():
    assert required_controls(effect=1.0, between=1.0, within=1.0) is None
    assert detectable_shift(between=1.0, within=1.0, controls=18) is None
    with pytest.raises(ValueError, match="not both 0"):
        power_randomization(effect=1.0, between=0.0, within=0.0, controls=19)


# -- variance split -----------------------------------------------------------------------------

SHAPES = [
    (3, 2, 4, 2),
    (4, 3, 2, 3),
    (5, 1, 3, 2),
    (3, 2, 4, 1),
    (1, 3, 4, 2),
    (4, 1, 3, 1),
    (1, 1, 5, 2),
    (1, 3, 4, 1),
]
INDEXED = {
    "problem": "p",
    "generation": "pg",
    "training": "ds",
    "draw": "d",
    "problem x draw": "pd",
    "generation x draw": "pgd",
    "problem x training": "pds",
    "residual": "pgds",
}


def raws(split):
    return {c.name: c.raw for c in split.components if c.raw is not None}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_component_is_estimated_without_bias(shape):
    """Exactly: E[estimate] of scores Z u, with u independent of variance 1, is the sum over the columns z of Z.

    Where the design cannot separate a source, exactly one other component (the one that says so) takes it in.
    """
    split = variance_split(np.random.default_rng(0).normal(size=shape))
    grid = np.indices(shape)
    for source, letters in INDEXED.items():
        cell = np.ravel_multi_index([grid["dspg".index(x)] for x in letters], [shape["dspg".index(x)] for x in letters])
        total = dict.fromkeys(raws(split), 0.0)
        for i in range(cell.max() + 1):
            for name, value in raws(variance_split((cell == i).astype(float))).items():
                total[name] += value
        got = {name: value for name, value in total.items() if abs(value) > 1e-9}
        if source in total:
            assert got == pytest.approx({source: 1.0}), source
        else:
            assert list(got.values()) in ([], [pytest.approx(1.0)]), source
            taken = [c for c in split.components if c.name in got]
            assert all(source in c.why.removeprefix("holds ").split(", ") for c in taken), source


def test_mean_squares_are_those_of_the_anova_table():
    """statsmodels anova_lm of y ~ d + d:s + p + p:g + d:p + d:p:g + d:s:p on these 48 numbers."""
    y = [
        [
            [[2.0, -2.6], [0.4, -0.6], [-0.5, -0.2], [-2.0, -0.2]],
            [[-0.9, 3.3], [0.2, -0.4], [-0.3, -0.7], [-1.1, -0.4]],
        ],
        [[[0.5, -0.2], [1.0, -0.2], [0.0, 1.5], [0.5, -0.5]], [[-0.2, 0.5], [1.9, -0.3], [-0.2, 1.0], [-0.9, -0.3]]],
        [[[0.9, 0.6], [0.1, 0.7], [-2.8, 1.0], [-1.0, -1.7]], [[0.3, 0.7], [-0.4, -1.1], [0.0, -0.1], [1.4, 0.7]]],
    ]
    assert mean_squares(np.array(y)) == pytest.approx(
        {
            "draw": 1.036875,
            "problem": 1.598611,
            "training": 0.551250,
            "generation": 1.380833,
            "problem x draw": 0.667986,
            "generation x draw": 0.673958,
            "problem x training": 1.027917,
            "residual": 2.131250,
        },
        abs=1e-6,
    )


def test_the_dyestuff_data():
    """Davies & Goldsmith 1972, table 6.2, six batches of five: 1764 between and 2451 within (Bates, lme4, 2010)."""
    batches = [
        [1545, 1440, 1440, 1520, 1580],
        [1540, 1555, 1490, 1560, 1495],
        [1595, 1550, 1605, 1510, 1560],
        [1445, 1440, 1595, 1465, 1545],
        [1595, 1630, 1515, 1635, 1625],
        [1520, 1455, 1450, 1480, 1445],
    ]
    split = variance_split(np.array(batches)[None, None])
    assert split.value("problem") == pytest.approx(1764.05, abs=0.01)
    assert split.value("generation") == pytest.approx(2451.25, abs=0.01)
    assert split.shares()["problem"] == pytest.approx(1764.05 / 4215.30)
    assert split.grand_mean == pytest.approx(1527.5)


def test_one_level_is_none_with_a_reason():
    rng = np.random.default_rng(4)
    one_seed = {c.name: c for c in variance_split(rng.normal(size=(5, 1, 6, 2))).components}
    assert (one_seed["training"].value, one_seed["training"].why) == (None, "one training seed")
    assert one_seed["draw"].why == "holds training"
    assert one_seed["generation x draw"].why == "holds residual"
    one_draw = {c.name: c for c in variance_split(rng.normal(size=(1, 3, 6, 1))).components}
    assert (one_draw["draw"].value, one_draw["draw"].why) == (None, "one layer draw")
    assert (one_draw["generation"].value, one_draw["generation"].why) == (None, "one generation seed")
    with pytest.raises(ValueError, match="two or more"):
        variance_split(np.zeros((3, 2, 1, 2)))
    with pytest.raises(ValueError, match="missing"):
        variance_split(np.full((3, 2, 4, 2), np.nan))
    with pytest.raises(ValueError, match="expected draws"):
        variance_split(np.zeros((3, 2, 4)))


def test_a_negative_estimate_is_zero_and_keeps_its_raw_value():
    y_DSPG = np.zeros((2, 1, 2, 2))
    y_DSPG[:, 0, :, 0], y_DSPG[:, 0, :, 1] = 1.0, -1.0  # answers of one problem differ, problems do not
    split = variance_split(y_DSPG)
    problem = next(c for c in split.components if c.name == "problem")
    assert problem.raw == pytest.approx(-1.0)
    assert problem.value == 0.0
    assert split.shares()["generation"] == 1.0


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES))
@settings(max_examples=40)
def test_the_split_ignores_shifts_and_order_and_scales_squared(seed, shape):
    rng = np.random.default_rng(seed)
    y_DSPG = rng.normal(size=shape)
    before = raws(variance_split(y_DSPG))
    changed = 3 * y_DSPG[:, :, rng.permutation(shape[2])][:, ::-1] + 2
    assert raws(variance_split(changed)) == pytest.approx({k: 9 * v for k, v in before.items()}, abs=1e-9)


@given(seed=st.integers(0, 10_000))
def test_the_spread_of_controls_is_draw_plus_within(seed):
    """The variance of T among arms is exactly what the components say it is, before negative ones are cut."""
    rng = np.random.default_rng(seed)
    D, S, P, G = shape = (6, 3, 5, 2)
    y_DSPG = rng.normal(size=shape) + rng.normal(size=(D, 1, 1, 1))
    split = variance_split(y_DSPG)
    exact = replace(split, components=tuple(replace(c, value=c.raw) for c in split.components))
    spread = y_DSPG.mean(axis=(1, 2, 3)).var(ddof=1)
    within = exact.within_draw(problems=P, generation_seeds=G, training_seeds=S)
    assert exact.value("draw") + within == pytest.approx(spread)
    assert split.within_draw(problems=2 * P, generation_seeds=G, training_seeds=S) <= split.within_draw(
        problems=P, generation_seeds=G, training_seeds=S
    )


# -- multiplicity -------------------------------------------------------------------------------


def test_the_primary_endpoint_is_tested_alone_and_opens_the_gate():
    passed = gatekept(0.05, [0.01, 0.04, None, 0.03])
    assert passed.primary
    assert passed.adjusted == pytest.approx([0.05, 0.06, None, 0.06])
    assert passed.secondary == (True, False, False, False)
    closed = gatekept(0.06, [0.001])
    assert (closed.primary, closed.secondary, closed.adjusted) == (False, (False,), (0.06,))
    with pytest.raises(ValueError, match=r"p = 1\.2"):
        gatekept(0.01, [1.2])
    with pytest.raises(ValueError, match="alpha"):
        gatekept(0.01, [], alpha=0.0)


@given(primary=st.floats(0, 1), p_values=st.lists(st.floats(0, 1), max_size=6), alpha=st.floats(0.01, 0.5))
def test_gatekeeping_is_holm_behind_the_primary(primary, p_values, alpha):
    found = gatekept(primary, p_values, alpha)
    assert found.secondary == tuple(primary <= alpha and p <= alpha for p in holm(p_values))


# -- the bench's simulator ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench():
    file = Path(__file__).parents[2] / "bench" / "sweep_statistics.py"
    spec = importlib.util.spec_from_file_location("bench_sweep_statistics", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_simulated_sweeps_have_the_mean_that_coverage_is_counted_against(bench):
    world = replace(bench.WORLDS[0], lift=0.2)
    errors = [s.scores_ASPG.mean(axis=(1, 2, 3)) - 0.5 - world.scale * s.quality_A for s in bench.sweeps(world, 150)]
    per_sweep = np.mean(errors, axis=1)
    assert abs(per_sweep.mean()) < 3.5 * per_sweep.std(ddof=1) / math.sqrt(150)
    assert per_sweep.std() < 0.3 * world.scale


def test_simulated_controls_are_valid_where_they_should_be(bench):
    world, rng = bench.WORLDS[0], np.random.default_rng(0)
    attributed, *controls = bench.draw_sets(rng, world, exclude=False).tolist()
    assert len(distinct_controls(attributed=attributed, controls=controls, population=range(world.n_layers))) == 19
    attributed, *controls = bench.draw_sets(rng, world, exclude=True).tolist()
    with pytest.raises(ValueError, match="all 19 controls avoid"):
        distinct_controls(attributed=attributed, controls=controls, population=range(world.n_layers))


def test_every_page_of_the_bench_prints_shares(bench):
    for page in (bench.coverage_page, bench.method_page, bench.false_positive_page, bench.power_page, bench.rest_page):
        rows = [line for line in page(2) if line.startswith("| ")]
        assert len(rows) >= 3, page
        assert not any("nan" in row for row in rows)


def test_excluding_the_attributed_layers_makes_false_positives_and_drawing_from_all_does_not(bench):
    null = replace(bench.QUIET, lift=0.0, k=4, problems=150)
    assert bench.rejections(null, 500) <= 0.05 + bench.noise(0.05, 500)
    assert bench.rejections(null, 500, exclude=True) >= 0.1
