"""Agreement figures against closed forms and plain enumeration."""

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observer_simulation import CASES, false_positives

from m3i.artifacts import Audit, Finding, LayerScores, ScoreRow, Trace
from m3i.audits.agreement import (
    correct_overlaps,
    layer_agreement,
    measure_agreement,
    overlap_p,
    read_once,
    score_agreement,
    span_agreement,
    token_alpha,
    trace_agreement,
)
from m3i.statistics import krippendorff_alpha


def rng():
    return np.random.default_rng(0)


def own(n):
    """Units of n traces of as many problems."""
    return [(f"p{i}", "text") for i in range(n)]


def test_overlap_of_layer_sets_by_chance():
    assert overlap_p(3, 27, 5, 5) == pytest.approx(0.030, abs=5e-4)
    assert overlap_p(4, 27, 5, 5) == pytest.approx(0.0014, abs=5e-5)
    assert overlap_p(0, 27, 5, 5) == 1.0


@settings(deadline=None)
@given(st.integers(1, 7), st.data())
def test_overlap_equals_counting_all_subsets(n, data):
    k, size, shared = (data.draw(st.integers(0, n)) for _ in range(3))
    ours = set(range(k))
    hits = [len(ours & set(other)) >= shared for other in combinations(range(n), size)]
    assert overlap_p(shared, n, k, size) == pytest.approx(np.mean(hits))


def test_kappa_of_a_known_table():
    # 20 both, 5 only the first, 10 only the second, 15 neither: the textbook's kappa is 0.4.
    a = [True] * 25 + [False] * 25
    b = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    found = trace_agreement(a, b, own(50), rng(), 4000)
    assert found["observed"] == pytest.approx(0.7)
    assert found["expected"] == pytest.approx(0.5)
    assert found["kappa"] == pytest.approx(0.4)
    assert (found["both"], found["only_first"], found["only_second"], found["neither"]) == (20, 5, 10, 15)
    # With a problem a trace, dealing out is Fisher's exact test.
    assert found["p"] == pytest.approx(overlap_p(20, 50, 25, 30), abs=0.003)


def test_kappa_is_undefined_when_nobody_varies():
    assert trace_agreement([True] * 3, [True] * 3, own(3), rng(), 9)["kappa"] is None
    assert trace_agreement([], [], [], rng(), 9)["kappa"] is None


def test_a_text_counts_once_in_p_and_each_time_in_the_estimate():
    units = [(f"p{i // 4}", "same") for i in range(16)]
    assert read_once(units) == [0, 4, 8, 12]
    calls = [True] * 8 + [False] * 8
    found = trace_agreement(calls, calls, units, rng(), 4000)
    assert (found["n"], found["both"], found["kappa"]) == (16, 8, 1.0)
    # Two of four problems each: the same two in 1 of 6 cases, not in 1 of 12,870.
    assert found["p"] == pytest.approx(1 / 6, abs=0.02)


def test_spans_of_one_problem_are_slid_together():
    masks = [mask(length, (0, length // 2)) for length in (10, 20, 10)]
    units = [("p", f"text {i}") for i in range(3)]
    found = span_agreement(masks, masks, units, rng(), 4000)
    assert found["f1"] == 1.0
    # Only offsets within the first token of the longest text leave all in place: 1 of 20.
    assert found["p"] == pytest.approx(1 / 20, abs=0.012)
    assert span_agreement(masks, masks, own(3), rng(), 4000)["p"] < 0.005


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_observers_that_know_nothing_of_each_other_seldom_agree(case):
    assert max(false_positives(case, runs=60, n_permutations=99)) <= 0.10


@pytest.mark.slow
def test_the_simulation_catches_a_test_that_takes_each_trace_for_a_problem():
    found = false_positives("40 problems × 4 samples, equal texts", runs=60, n_permutations=99, traces_as_units=True)
    assert min(found) > 0.12


def mask(length, *spans):
    out = np.zeros(length, dtype=bool)
    for a, b in spans:
        out[a:b] = True
    return out


def test_span_f1_and_its_chance_in_closed_form():
    a, b = [mask(10, (2, 6))], [mask(10, (4, 8))]
    found = span_agreement(a, b, own(1), rng(), 4000)
    assert found["f1"] == pytest.approx(0.5)
    assert found["expected"] == pytest.approx(2 * (4 * 4 / 10) / 8)
    # Shifts that overlap in at least 2 of 4 tokens: 5 of 10.
    assert found["p"] == pytest.approx(0.5, abs=0.03)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_expected_overlap_is_the_mean_over_all_shifts(first, data):
    second = data.draw(st.lists(st.booleans(), min_size=len(first), max_size=len(first)))
    a, b = np.array(first), np.array(second)
    if not (a.any() and b.any()):
        return
    mean = np.mean([(a & np.roll(b, shift)).sum() for shift in range(len(a))])
    assert span_agreement([a], [b], own(1), rng(), 1)["expected"] == pytest.approx(2 * mean / (a.sum() + b.sum()))


def test_spans_count_only_where_both_call_the_trace_failing():
    assert span_agreement([mask(5, (0, 2)), mask(5)], [mask(5), mask(5, (0, 2))], own(2), rng(), 10)["n_traces"] == 0
    assert span_agreement([], [], [], rng(), 10)["f1"] is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40), st.integers(1, 39))
def test_alpha_of_tokens_is_krippendorffs_however_they_are_cut_into_traces(labels, cut):
    a, b = (np.array(side, dtype=bool) for side in zip(*labels, strict=True))
    found = token_alpha([a[:cut], a[cut:]], [b[:cut], b[cut:]])
    assert found["n_tokens"] == len(labels)
    assert found["alpha"] == pytest.approx(krippendorff_alpha([a.tolist(), b.tolist()]))


def test_alpha_counts_traces_that_only_one_observer_flags():
    both = span_agreement([mask(10, (2, 6))], [mask(10, (2, 6))], own(1), rng(), 10)
    one = span_agreement([mask(10, (2, 6)), mask(10)], [mask(10, (2, 6)), mask(10, (0, 4))], own(2), rng(), 10)
    assert (both["alpha"], both["f1"]) == (1.0, 1.0)
    assert one["f1"] == 1.0
    assert one["alpha"] < 0.7
    assert span_agreement([mask(5)], [mask(5)], own(1), rng(), 10)["alpha"] is None


def test_identical_spans_in_many_traces_are_no_chance():
    masks = [mask(20, (i, i + 3)) for i in range(12)]
    found = span_agreement(masks, masks, own(12), rng(), 999)
    assert found["f1"] == 1.0
    assert found["p"] == pytest.approx(0.001)


def test_a_shared_habit_is_no_agreement_within_traces():
    """Two observers that always name the middle agree overall, and not more in a trace than between traces."""
    middle = [frozenset({4, 5, 6})] * 15
    found = layer_agreement(middle, middle, own(15), 27, rng(), 500)
    assert found["overall"]["shared"] == 3
    assert found["overall"]["p"] == pytest.approx(1 / 2925)
    assert found["within"]["shared"] == found["within"]["expected_shuffled"] == 3
    assert found["within"]["p"] == 1.0
    assert found["within"]["expected_random"] == pytest.approx(1 / 3)


def test_agreement_within_traces_is_seen():
    picks = [frozenset({i % 9, (i + 1) % 9}) for i in range(18)]
    found = layer_agreement(picks, picks, own(18), 9, rng(), 999)
    assert found["within"]["shared"] == 2
    assert found["within"]["p"] < 0.01
    # Each text four times is no more evidence, and no other estimate.
    copies = layer_agreement(picks * 4, picks * 4, own(18) * 4, 9, rng(), 999)["within"]
    assert copies["p"] == found["within"]["p"]
    assert copies["expected_shuffled"] == pytest.approx(found["within"]["expected_shuffled"])
    assert layer_agreement([frozenset()], [frozenset({1})], own(1), 9, rng(), 9) == {
        "n_traces": 0,
        "overall": None,
        "within": None,
    }


def trace_of(name, n, *, problem="p", correct=False):
    return Trace(
        id=name,
        problem_id=problem,
        sample=0,
        prompt_ids=(1,),
        completion_ids=(5,) * n,
        text="abcdefghijklmnopqrstuvwxyz"[:n],
        offsets=tuple((j, j + 1) for j in range(n)),
        logprobs=(0.0,) * n,
        correct=correct,
        answer=None,
        truncated=True,
    )


def test_the_whole_table_is_json_and_counts_shared_traces_alone():
    traces = [trace_of(f"t{i}", 6) for i in range(4)]

    def audit(name, hits, layers, audited):
        findings = tuple(
            Finding(
                trace_id=f"t{i}",
                quote="bc",
                start=1,
                end=3,
                token_start=1,
                token_end=3,
                kind="k",
                reason="r",
                layers=layers,
            )
            for i in hits
        )
        return Audit(observer=name, findings=findings, audited=tuple(f"t{i}" for i in audited))

    audits = {
        "a": audit("a", (0, 1), (1, 2), (0, 1, 2, 3)),
        "b": audit("b", (0, 3), (2, 3), (0, 1, 2)),
        "c": audit("c", (), (), (0,)),
    }
    found = measure_agreement(audits, traces, n_layers=6, n_permutations=50)
    assert json.loads(json.dumps(found)) == found
    assert [p["observers"] for p in found["pairs"]] == [["a", "b"], ["a", "c"], ["b", "c"]]
    ab = found["pairs"][0]
    assert ab["traces"]["n"] == 3
    assert ab["traces"]["both"] == 1
    assert ab["spans"]["n_traces"] == 1
    assert ab["layers"]["overall"]["shared"] == 1
    assert found == measure_agreement(audits, traces, n_layers=6, n_permutations=50)
    # One pair names layers at all, so there is nothing to correct for.
    assert ab["layers"]["overall"]["p_holm"] == ab["layers"]["overall"]["p"]


def test_overlaps_are_corrected_over_all_pairs_of_observers():
    traces = [trace_of(f"t{i}", 6) for i in range(3)]
    audits = {
        name: Audit(
            observer=name,
            findings=tuple(
                Finding(
                    trace_id=t.id, quote="b", start=1, end=2, token_start=1, token_end=2, kind="k", reason="",
                    layers=layers,
                )
                for t in traces
            ),
            audited=tuple(t.id for t in traces),
        )
        for name, layers in {"a": (1, 2, 3, 4, 5), "b": (2, 3, 4, 5, 6), "c": (20, 21, 22, 23, 5)}.items()
    }  # fmt: skip
    pairs = measure_agreement(audits, traces, n_layers=27, n_permutations=20)["pairs"]
    overall = {tuple(p["observers"]): p["layers"]["overall"] for p in pairs}
    assert overall["a", "b"]["shared"] == 4
    assert overall["a", "b"]["p"] == pytest.approx(0.0014, abs=5e-5)
    assert overall["a", "b"]["p_holm"] == pytest.approx(3 * overall["a", "b"]["p"])
    assert overall["a", "c"]["p_holm"] == overall["b", "c"]["p_holm"] == 1.0


def test_scores_of_two_observers_compare_by_their_top_layers():
    def row(name, scores):
        return ScoreRow(observer=name, scores=scores, low=scores, high=scores, n_traces=3)

    scores = LayerScores(
        attributor="x", rows=(row("a", (9, 3, 2, 1, 0)), row("b", (9, 0, 2, 3, 0)), row("joint", (9, 1, 1, 1, 0)))
    )
    (found,) = score_agreement(scores, 2, (1, 2, 3, 4))
    assert (found["first"], found["second"], found["shared"]) == ([1, 2], [2, 3], 1)
    assert found["expected"] == 1.0
    assert found["p"] == pytest.approx(5 / 6)


def test_top_layers_are_corrected_over_all_rows_of_all_attributors():
    rows = [{"p": 0.03}, {"p": 0.0014}, {"p": 0.5}]
    correct_overlaps(rows)
    assert [row["p_holm"] for row in rows] == pytest.approx([0.06, 0.0042, 0.5])
