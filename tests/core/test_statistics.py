"""Statistics against closed forms, published values and brute force."""

import json
import math
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm, spearmanr

from m3i.statistics import (
    cluster_mean,
    clustered_proportion,
    detectable_share,
    holm,
    krippendorff_alpha,
    mcnemar,
    paired_difference,
    power_sign_test,
    problem_signs,
    proportion,
    rank_correlation,
    required_n,
    sign_test,
    unseen_share,
)

# -- sign test ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("wins", "losses"), [(1, 3), (0, 5), (10, 0), (7, 7), (12, 3)])
def test_sign_test_p_is_the_binomial_tail(wins, losses):
    n, worse = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, k) for k in range(worse + 1)) / 2**n
    assert sign_test(wins=wins, losses=losses).p == pytest.approx(min(1.0, 2 * tail))


def test_the_seed_run_was_undecided():
    test = sign_test(wins=1, losses=3)
    assert test.p == 0.625
    assert (test.low, test.high) == pytest.approx((0.0063, 0.8059), abs=1e-4)


@given(wins=st.integers(0, 60), losses=st.integers(0, 60))
def test_clopper_pearson_is_the_beta_quantile(wins, losses):
    test = sign_test(wins=wins, losses=losses)
    low = beta.ppf(0.025, wins, losses + 1) if wins else 0.0
    high = beta.ppf(0.975, wins + 1, losses) if losses else 1.0
    assert (test.low, test.high) == pytest.approx((low, high), abs=1e-9)


def test_no_decisive_pair_says_so_without_nan():
    test = sign_test(wins=0, losses=0)
    assert (test.p, test.share, test.low, test.high) == (1.0, None, 0.0, 1.0)


@pytest.mark.parametrize("n", [1, 16, 300])
def test_none_of_n_is_the_rule_of_three(n):
    assert (1 - unseen_share(n)) ** n == pytest.approx(0.05)
    assert unseen_share(0) == 1.0
    if n >= 100:
        assert unseen_share(n) == pytest.approx(3 / n, rel=0.01)


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="cannot be negative"):
        sign_test(wins=-1, losses=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        sign_test(wins=1, losses=0, level=1.0)


def test_a_problem_is_one_sign_however_many_seeds():
    scores = [("a", 1), ("a", 1), ("a", -1), ("b", -1), ("b", 1), ("c", -1), ("c", 0), ("d", 0)]
    assert problem_signs(scores) == (1, 1, 2)


# -- paired proportions -------------------------------------------------------------------------


def test_published_airway_example():
    """Fagerland, Lydersen & Laake 2014, table 2 (airway hyper-responsiveness, n = 21, b = 1, c = 7)."""
    interval = paired_difference(fixed=1, broken=7, n=21)
    assert interval.value == pytest.approx(-0.286, abs=5e-4)
    assert (interval.low, interval.high) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert mcnemar(fixed=1, broken=7).p == pytest.approx(0.0703, abs=5e-5)


@pytest.mark.parametrize("n", [1, 10, 120])
def test_no_discordant_pair_keeps_a_width(n):
    z2 = norm.ppf(0.975) ** 2
    interval = paired_difference(fixed=0, broken=0, n=n)
    assert (interval.low, interval.high) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)), abs=1e-6)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_all_fixed_has_the_closed_form(n):
    z2 = norm.ppf(0.975) ** 2
    interval = paired_difference(fixed=n, broken=0, n=n)
    assert (interval.low, interval.high) == pytest.approx(((n - z2) / (n + z2), 1.0), abs=1e-6)


@given(fixed=st.integers(0, 30), broken=st.integers(0, 30), neither=st.integers(0, 40))
def test_tango_contains_the_estimate_and_mirrors(fixed, broken, neither):
    n = fixed + broken + neither
    one, other = (paired_difference(fixed=f, broken=b, n=n) for f, b in ((fixed, broken), (broken, fixed)))
    assert -1 <= one.low <= one.high <= 1
    assert n == 0 or one.low - 1e-9 <= one.value <= one.high + 1e-9
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-7)


def test_wilson_against_the_formula():
    z, p, n = norm.ppf(0.975), 0.3, 40
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    estimate = proportion(successes=12, n=40)
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half))


# -- bootstrap ----------------------------------------------------------------------------------


def test_cluster_mean_matches_the_normal_approximation_over_problems():
    clusters = [f"p{i}" for i in range(400) for _ in range(3)]
    values = [float(i % 2) for i in range(400) for _ in range(3)]
    estimate = cluster_mean(clusters=clusters, values=values)
    half = 1.96 * 0.5 / math.sqrt(400)  # 400 problems, not 1200 rows
    assert estimate.n == 400
    assert estimate.value == 0.5
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.06)


def test_cluster_mean_repeats_exactly_and_names_degenerate_cases():
    arguments = {"clusters": ["a", "b", "b"], "values": [1.0, 0.0, 0.5]}
    assert cluster_mean(**arguments) == cluster_mean(**arguments)
    assert cluster_mean(clusters=["a", "b"], values=[0.5, 0.5]).degenerate
    assert cluster_mean(clusters=["a"], values=[1.0]).degenerate
    nothing = cluster_mean(clusters=[], values=[])
    assert (nothing.value, nothing.low, nothing.high, nothing.n) == (None, 0.0, 1.0, 0)


def clusters_of(n_clusters, size):
    return [f"p{i}" for i in range(n_clusters) for _ in range(size)]


def test_one_row_a_cluster_is_wilson():
    values = [i < 12 for i in range(40)]
    estimate = clustered_proportion(clusters=clusters_of(40, 1), successes=values)
    assert estimate == proportion(successes=12, n=40)


@pytest.mark.parametrize("size", [2, 5])
def test_copies_of_a_row_are_no_evidence(size):
    """Rows that repeat within a cluster are worth one each: Wilson at the number of clusters, with t for the normal."""
    from scipy.stats import t

    estimate = clustered_proportion(
        clusters=clusters_of(40, size), successes=[i < 12 for i in range(40) for _ in range(size)]
    )
    n, q, p = 39, t.ppf(0.975, 39), 0.3  # the variance over clusters has 40 - 1 in its denominator
    centre = (p + q**2 / (2 * n)) / (1 + q**2 / n)
    half = q / (1 + q**2 / n) * math.sqrt(p * (1 - p) / n + q**2 / (4 * n**2))
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half))
    assert estimate.n == 40 * size


def test_all_alike_keeps_a_width_that_the_clusters_set():
    few = clustered_proportion(clusters=clusters_of(5, 20), successes=[True] * 100)
    many = clustered_proportion(clusters=clusters_of(50, 2), successes=[True] * 100)
    assert few.value == many.value == 1.0
    assert few.low < many.low < proportion(successes=100, n=100).low
    assert clustered_proportion(clusters=["p"] * 9, successes=[True] * 9).low < 0.3
    assert clustered_proportion(clusters=[], successes=[]).value is None


@pytest.mark.parametrize(("n_clusters", "size", "share"), [(25, 4, 0.8), (60, 4, 0.9), (12, 8, 0.6)])
def test_the_interval_over_clusters_covers_the_truth(n_clusters, size, share):
    """Beta-binomial rows (intraclass correlation 1/3): 95 % intervals hold the true share 93 to 98 times in 100."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(500):
        rate_C = rng.beta(2 * share, 2 * (1 - share), n_clusters)
        rows = (rng.random((n_clusters, size)) < rate_C[:, None]).ravel().tolist()
        estimate = clustered_proportion(clusters=clusters_of(n_clusters, size), successes=rows)
        hits += estimate.low <= share <= estimate.high
    assert 465 <= hits <= 490


# -- several tests, labels, ranks ---------------------------------------------------------------


def test_holm_in_numbers():
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.04, None, 0.01]) == [0.04, None, 0.02]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_procedure(p_values):
    """Rejecting where the adjusted p is at most alpha is what Holm's procedure rejects, for any alpha."""
    adjusted = holm(p_values)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[i] * (len(p_values) - rank) > alpha:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected


def test_alpha_of_krippendorffs_own_examples():
    """Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": sections A (binary) and C (nominal, missing)."""
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha([meg, owen]) == pytest.approx(0.095, abs=5e-4)
    gone = None
    four = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, gone, gone, gone],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gone, 3],
        [gone, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gone],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gone],
    ]
    assert krippendorff_alpha(four) == pytest.approx(0.743, abs=5e-4)


def test_alpha_at_its_ends():
    assert krippendorff_alpha([[0, 1, 1], [0, 1, 1]]) == 1.0
    assert krippendorff_alpha([[0, 1], [1, 0]]) < 0
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None
    assert krippendorff_alpha([[1, None], [None, 1]]) is None
    rng = np.random.default_rng(0)
    assert abs(krippendorff_alpha(rng.integers(2, size=(2, 20_000)).tolist())) < 0.02


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 1)), min_size=3, max_size=25))
def test_spearman_is_scipys(rows):
    a, b = zip(*rows, strict=True)
    found = rank_correlation(a, b, draws=10)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert (found.rho, found.p) == (None, None)
    else:
        assert found.rho == pytest.approx(spearmanr(a, b).statistic)


def test_the_permutation_p_is_the_share_of_all_orders():
    from itertools import permutations

    a, b = [1, 2, 3, 4, 5], [1, 3, 2, 5, 5]
    rho = rank_correlation(a, b, draws=1).rho
    exact = np.mean([abs(spearmanr(a, order).statistic) >= abs(rho) - 1e-12 for order in permutations(b)])
    assert rank_correlation(a, b, draws=4000).p == pytest.approx(exact, abs=0.02)
    assert rank_correlation([1, 2], [1, 2]).rho is None


# -- power --------------------------------------------------------------------------------------


def test_six_to_four_at_two_thirds_ties_takes_619_pairs():
    assert required_n(share=0.6, tie_rate=0.67) == 619
    assert power_sign_test(n=619, share=0.6, tie_rate=0.67) >= 0.8


@pytest.mark.parametrize(("n", "share", "tie_rate"), [(12, 0.8, 0.5), (9, 1.0, 0.0), (10, 0.7, 0.25), (5, 1.0, 0.0)])
def test_power_is_the_sum_over_all_outcomes(n, share, tie_rate):
    """Brute force over every (wins, losses)."""
    total = 0.0
    for wins, losses in product(range(n + 1), repeat=2):
        if wins + losses <= n and sign_test(wins=wins, losses=losses).p <= 0.05:
            decided = wins + losses
            total += binom.pmf(decided, n, 1 - tie_rate) * binom.pmf(wins, decided, share)
    assert power_sign_test(n=n, share=share, tie_rate=tie_rate) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize(("n", "tie_rate"), [(600, 0.67), (100, 0.7), (30, 0.0)])
def test_detectable_share_is_where_power_crosses(n, tie_rate):
    share = detectable_share(n=n, tie_rate=tie_rate)
    assert power_sign_test(n=n, share=share, tie_rate=tie_rate) >= 0.8
    assert power_sign_test(n=n, share=share - 0.01, tie_rate=tie_rate) < 0.8


def test_the_seed_run_could_detect_nothing():
    assert detectable_share(n=12, tie_rate=8 / 12) is None


def test_impossible_questions_have_no_n():
    assert required_n(share=0.5, tie_rate=0.1) is None
    assert required_n(share=0.9, tie_rate=1.0) is None
    assert required_n(share=0.5001, tie_rate=0.5) is None
    assert power_sign_test(n=0, share=0.9, tie_rate=0.5) == 0.0
    with pytest.raises(ValueError, match="tie_rate"):
        power_sign_test(n=10, share=0.9, tie_rate=1.5)


@given(wins=st.integers(0, 3), losses=st.integers(0, 3), ties=st.integers(0, 3))
def test_everything_is_json_without_nan(wins, losses, ties):
    n = wins + losses + ties
    values = [
        asdict(sign_test(wins=wins, losses=losses)),
        asdict(paired_difference(fixed=wins, broken=losses, n=n)),
        asdict(proportion(successes=wins, n=n)),
        detectable_share(n=n, tie_rate=ties / n if n else 1.0),
    ]
    json.dumps(values, allow_nan=False)
