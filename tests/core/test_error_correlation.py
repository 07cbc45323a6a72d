"""Errors of observers against the verifier: closed forms, permutations by brute force, and coverage by simulation."""

import json
from itertools import permutations

import numpy as np
import pytest
from error_simulation import rates

from m3i.artifacts import Audit, Finding, Trace
from m3i.audits.accuracy import call_accuracy, citation_rate, place_accuracy, places_section
from m3i.audits.shared_errors import effective_number, error_correlation, pair_errors, panel_errors
from m3i.statistics import dealt_orders


def trace(name, *, problem="", correct=False, n=20):
    return Trace(
        id=name,
        problem_id=problem or name,
        sample=0,
        prompt_ids=(1,),
        completion_ids=(5,) * n,
        text="x" * n,
        offsets=tuple((j, j + 1) for j in range(n)),
        logprobs=(0.0,) * n,
        correct=correct,
        answer=None,
        truncated=False,
    )


def finding(name, start=2, end=4):
    return Finding(
        trace_id=name, quote="xx", start=start, end=end, token_start=start, token_end=end, kind="k", reason="r"
    )


def audit(name, flagged, traces, **changes):
    spans = flagged if isinstance(flagged, dict) else dict.fromkeys(flagged, (2, 4))
    findings = tuple(finding(t, *span) for t, span in spans.items())
    return Audit(observer=name, findings=findings, audited=tuple(t.id for t in traces), **changes)


def pair(a, b, *, wrong=None, problems=None, n_permutations=200):
    a, b = np.array(a, dtype=bool), np.array(b, dtype=bool)
    wrong_N = np.zeros(len(a), dtype=bool) if wrong is None else np.array(wrong, dtype=bool)
    return pair_errors(
        a,
        b,
        wrong_N=wrong_N,
        problems=problems or [str(i) for i in range(len(a))],
        rng=np.random.default_rng(0),
        n_permutations=n_permutations,
    )


# -- calls against the verifier -----------------------------------------------------------------


def test_the_four_counts_and_their_shares():
    traces = [trace(f"w{i}") for i in range(10)] + [trace(f"r{i}", correct=True) for i in range(30)]
    found = call_accuracy(audit("a", ["w0", "w1", "w2", "w3", "w4", "w5", "r0", "r1"], traces), traces)
    counts = [found[f"{truth}_{call}"] for truth in ("true", "false") for call in ("positive", "negative")]
    assert counts == [6, 28, 2, 4]
    assert found["precision"]["value"] == 6 / 8
    assert found["recall"]["value"] == 6 / 10
    assert found["specificity"]["value"] == 28 / 30
    assert found["recall"]["low"] < 0.6 < found["recall"]["high"]


def test_a_trace_without_an_answer_is_no_error():
    traces = [trace("w0"), trace("w1"), trace("r0", correct=True)]
    found = call_accuracy(audit("a", ["w0"], [traces[0], traces[2]], missing={"w1": "refused"}), traces)
    assert found["n"] == 2
    assert (found["recall"]["value"], found["recall"]["n"]) == (1.0, 1)


def test_samples_of_one_problem_are_one_unit():
    apart = [trace(f"w{i}") for i in range(40)]
    together = [trace(f"w{i}", problem=str(i // 8)) for i in range(40)]
    flagged = [f"w{i}" for i in range(24)]
    widths = []
    for traces in (apart, together):
        recall = call_accuracy(audit("a", flagged, traces), traces)["recall"]
        widths.append(recall["high"] - recall["low"])
    assert widths[1] > 2 * widths[0]


def test_nothing_flagged_has_no_precision():
    traces = [trace("w0")]
    found = call_accuracy(audit("a", [], traces), traces)
    assert found["precision"]["value"] is None
    assert found["specificity"]["value"] is None


# -- places against the checker -----------------------------------------------------------------


def test_places_in_closed_form():
    traces = [trace(f"t{i}") for i in range(3)]
    truth = audit("checker", {"t0": (2, 6), "t1": (2, 6)}, traces)
    said = audit("a", {"t0": (4, 8), "t1": (10, 14), "t2": (0, 20)}, traces)
    found = place_accuracy(said, truth, traces)
    assert found["n_traces"] == 2
    assert found["hit"]["value"] == 0.5
    assert (found["precision"], found["recall"], found["f1"]) == (2 / 8, 2 / 8, 0.25)


def test_without_a_checker_there_is_no_truth_about_places():
    traces = [trace("t0")]
    audits = {"a": audit("a", ["t0"], traces), "b": audit("b", ["t0"], traces)}
    assert places_section(audits, traces, truth=None) == {"truth": "", "observers": {}}
    assert list(places_section(audits, traces, truth="a")["observers"]) == ["b"]
    nothing = place_accuracy(audit("a", [], traces), audits["b"], traces)
    assert (nothing["n_traces"], nothing["f1"], nothing["hit"]["value"]) == (0, None, None)


# -- citations ----------------------------------------------------------------------------------


def test_an_ambiguous_quote_is_not_invented():
    traces = [trace(f"t{i}") for i in range(12)]
    found = citation_rate(audit("a", [t.id for t in traces], traces, rejected_quotes=5, ambiguous_quotes=3))
    assert found["rate"]["n"] == 20
    assert found["rate"]["value"] == 0.25
    assert found["rate"]["low"] == pytest.approx(0.1119, abs=1e-4)  # Wilson for 5 of 20
    assert citation_rate(audit("a", [], traces))["rate"]["value"] is None


# -- errors of two observers --------------------------------------------------------------------


def test_phi_of_a_known_table():
    """20 shared errors, 5 and 10 alone, 65 neither: phi = (20 * 65 - 5 * 10) / sqrt(25 * 75 * 30 * 70)."""
    a = [1] * 20 + [1] * 5 + [0] * 10 + [0] * 65
    b = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 65
    found = pair(a, b)
    assert found["phi_marginal"] == pytest.approx(1250 / np.sqrt(25 * 75 * 30 * 70))
    assert found["expected_errors"] == 25 * 30 / 100
    assert found["shared_share"] == 20 / 35
    assert found["expected_share"] == pytest.approx(7.5 / 47.5)
    assert found["p"] == pytest.approx(1 / 201)


def test_p_is_the_share_of_all_orders():
    a, b = [1, 1, 0, 0, 0, 1], [1, 1, 0, 0, 1, 0]
    exact = np.mean([sum(x and y for x, y in zip(a, order, strict=True)) >= 2 for order in permutations(b)])
    assert pair(a, b, n_permutations=4000)["p"] == pytest.approx(exact, abs=0.025)


def test_samples_that_fail_together_are_not_many_coincidences():
    """Two observers that err on one of two problems each, the same one, ten samples a problem: a chance of one half."""
    errors, problems = [1] * 10 + [0] * 10, ["p"] * 10 + ["q"] * 10
    assert pair(errors, errors, problems=problems, n_permutations=2000)["p"] == pytest.approx(0.5, abs=0.05)
    assert pair(errors, errors, n_permutations=2000)["p"] < 0.001


def test_missing_failures_alone_is_no_shared_blindness():
    """Both miss half of the failures, independently, and raise no false alarm: correlated, but not at equal truth."""
    wrong = [1] * 40 + [0] * 160
    a = ([1, 1, 0, 0] * 10) + [0] * 160
    b = ([1, 0, 1, 0] * 10) + [0] * 160
    found = pair(a, b, wrong=wrong)
    assert found["phi_marginal"] > 0.4
    assert found["phi_given_truth"] == pytest.approx(0.0)
    assert found["shared_errors"] == found["expected_errors"] == 10
    assert found["p"] > 0.5


def test_a_class_without_variance_adds_nothing():
    """Among the wrong traces as in a table of 20, 5, 10 and 65; among the right ones the first observer never errs."""
    a = [1] * 20 + [1] * 5 + [0] * 10 + [0] * 65 + [0] * 50
    b = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 65 + [0] * 50
    found = pair(a, b, wrong=[1] * 100 + [0] * 50)
    assert found["phi_given_truth"] == pytest.approx(1250 / np.sqrt(25 * 75 * 30 * 70))
    assert found["expected_errors"] == pytest.approx(7.5)
    assert panel({"a": a, "b": b}, wrong=[1] * 100 + [0] * 50)["mean_phi"]["value"] == pytest.approx(
        found["phi_given_truth"]
    )


def test_an_observer_that_calls_all_alike_has_nothing_to_share():
    wrong = [1] * 30 + [0] * 30
    some = [1, 0] * 30
    found = pair(wrong, some, wrong=wrong)  # it calls every trace right
    assert (found["phi_given_truth"], found["p"]) == (None, None)
    assert found["phi_marginal"] is not None
    assert found["reason"] == "the first observer calls all traces alike: no errors vary given the truth"
    both = panel({"yes": [1 - w for w in wrong], "no": wrong, "a": some}, wrong=wrong)
    assert both["left_out"]["yes"].startswith("finds a failure in all of these traces")
    assert both["left_out"]["no"].startswith("finds a failure in none of these traces")
    assert both["observers"] == ["a"]


def test_errors_in_different_classes_cannot_be_compared():
    wrong = [1] * 30 + [0] * 30
    misses, alarms = [1, 0] * 15 + [0] * 30, [0] * 30 + [1, 0] * 15
    found = pair(misses, alarms, wrong=wrong)
    assert (found["phi_given_truth"], found["p"]) == (None, None)
    assert "neither among incorrect nor among correct traces" in found["reason"]
    none = panel({"a": misses, "b": alarms}, wrong=wrong)
    assert (none["n_eff"]["value"], none["mean_phi"]["value"]) == (None, None)
    assert "errors of no two observers vary among incorrect or among correct traces" in none["reason"]
    assert panel({"a": misses, "b": alarms, "c": misses}, wrong=wrong)["mean_phi"]["value"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("case", ["60 problems × 1 sample", "40 problems × 4 samples, rates by problem"])
def test_observers_independent_given_the_truth_share_no_mistakes(case):
    """Both miss 60 % of the failures with 5 % false alarms: without regard to the truth p ≤ 0.05 in 73 of 100 runs."""
    found = rates(case, runs=150, n_permutations=99, n_bootstrap=200)
    assert found["p"] <= 0.10
    assert found["says_shared"] <= 0.08
    assert found["n_eff"] > 1.85


def test_errors_are_dealt_out_within_their_class():
    clusters, kinds = list("aaabbbccd"), [True, False, False] * 2 + [True, False, True]
    places = set()
    for order_N in dealt_orders(clusters=clusters, kinds=kinds, rng=np.random.default_rng(0), draws=100):
        assert sorted(order_N) == list(range(9))
        assert [kinds[i] for i in order_N] == kinds
        taken = [clusters[i] for i in order_N]
        assert len(set(taken[:3])) == len(set(taken[3:6])) == 1
        assert taken[6:] == ["c", "c", "d"]
        places.add("".join(taken))
    assert places == {"aaabbbccd", "bbbaaaccd"}


def test_mistakes_that_are_shared_at_equal_truth_are_found():
    found = rates("116 problems × 1 sample", runs=40, shared=0.5, n_permutations=99, n_bootstrap=200)
    assert found["p"] >= 0.9
    assert found["says_shared"] >= 0.9
    assert found["n_eff"] < 1.5


@pytest.mark.parametrize(("a", "b"), [([0, 0, 0], [0, 1, 1]), ([1, 1, 1], [0, 1, 1])])
def test_no_variance_no_correlation_but_a_reason(a, b):
    found = pair(a, b)
    assert (found["phi_marginal"], found["phi_given_truth"], found["p"]) == (None, None, None)
    assert "errs on none or on all of these traces" in found["reason"]


def test_two_observers_without_a_shared_trace_have_no_errors_to_compare():
    found = pair([], [])
    assert (found["n"], found["phi_marginal"], found["p"]) == (0, None, None)
    assert found["reason"] == "no trace that both audited"


# -- the panel ----------------------------------------------------------------------------------


def panel(errors, problems=None, *, wrong=None, **options):
    n = len(next(iter(errors.values())))
    return panel_errors(
        {name: np.array(values, dtype=bool) for name, values in errors.items()},
        wrong_N=np.array(wrong if wrong is not None else [False] * n, dtype=bool),
        problems=problems or [str(i) for i in range(n)],
        rng=np.random.default_rng(0),
        **options,
    )


def test_copies_are_worth_one_and_opposites_no_more_than_two():
    errors = [1, 0, 0, 1, 0, 0, 0, 1, 0, 0] * 10
    copies = panel({"a": errors, "b": errors, "c": errors})
    assert copies["n_eff"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    # An interval without a width is no certainty.
    assert copies["degenerate"]
    assert "would look like certainty" in copies["reason"]
    unlike = panel({"a": errors, "b": errors[5:] + errors[:5]})
    assert unlike["mean_phi"]["low"] < unlike["mean_phi"]["high"]
    assert not unlike["degenerate"]
    opposite = panel({"a": errors, "b": [1 - e for e in errors]})
    assert opposite["mean_phi"]["value"] == pytest.approx(-1.0)
    assert opposite["n_eff"]["value"] == 2.0
    assert effective_number(4, 1 / 3) == 2.0


def test_an_observer_that_is_the_truth_drops_out_and_says_why():
    errors = [1, 0, 0, 1, 0] * 20
    found = panel({"checker": [0] * 100, "a": errors, "b": errors[1:] + errors[:1], "contrary": [1] * 100})
    assert found["observers"] == ["a", "b"]
    assert found["left_out"]["checker"].startswith("makes no errors")
    assert found["left_out"]["contrary"].startswith("errs on all of these traces")
    assert found["n_eff"]["value"] is not None
    alone = panel({"checker": [0] * 10, "a": errors[:10]})
    assert alone["n_eff"]["value"] is None
    assert alone["reason"] == "it takes two observers that sometimes err, and there is only one"
    assert panel({"a": errors})["reason"].endswith("there is only one")
    assert panel({"a": [0] * 9, "b": [1] * 9})["reason"].endswith("there is none")


def test_two_errors_are_too_few_for_an_interval():
    found = panel({"a": [1] + [0] * 49, "b": [0, 1] + [0] * 48})
    assert found["n_eff"]["low"] is None
    assert found["reason"] == "too few errors for an interval"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_problems", "samples", "n_observers", "shared"), [(120, 1, 2, 0.4), (116, 1, 3, 0.3), (80, 4, 3, 0.4)]
)
def test_the_interval_covers_the_true_number_of_observers(n_problems, samples, n_observers, shared):
    """With probability `shared` a problem's error is drawn once for all observers, else for each: phi is `shared`.

    With four samples a problem, whole problems are drawn alike, so that traces are anything but independent.
    """
    rng, hits = np.random.default_rng(0), 0
    problems = [str(i) for i in range(n_problems) for _ in range(samples)]
    for _ in range(500):
        one_draw_P, common_P = rng.random(n_problems) < shared, rng.random(n_problems) < 0.2
        errors = {
            str(i): np.repeat(np.where(one_draw_P, common_P, rng.random(n_problems) < 0.2), samples)
            for i in range(n_observers)
        }
        found = panel_errors(
            errors,
            wrong_N=np.zeros(len(problems), dtype=bool),
            problems=problems,
            n_bootstrap=500,
            rng=np.random.default_rng(1),
        )["n_eff"]
        hits += found["low"] <= effective_number(n_observers, shared) <= found["high"]
    assert 465 <= hits <= 485


def test_the_whole_section_is_json_over_shared_traces():
    traces = [trace(f"w{i}", problem=str(i // 2)) for i in range(20)] + [
        trace(f"r{i}", problem=str(i // 2), correct=True) for i in range(20)
    ]
    audits = {
        "checker": audit("checker", [f"w{i}" for i in range(20)], traces),
        "a": audit("a", [f"w{i}" for i in range(12)] + ["r0"], traces),
        "b": audit("b", [f"w{i}" for i in range(14)] + ["r0", "r1"], traces[:-1]),
    }
    found = error_correlation(audits, traces, n_bootstrap=200, n_permutations=100)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [row["observers"] for row in found["pairs"]] == [["checker", "a"], ["checker", "b"], ["a", "b"]]
    ab = found["pairs"][2]
    assert (ab["n"], ab["first_errors"], ab["second_errors"], ab["shared_errors"]) == (39, 9, 8, 7)
    assert ab["p_holm"] == ab["p"]  # the two pairs with the checker have no test
    assert found["panel"]["observers"] == ["a", "b"]
    assert found == error_correlation(audits, traces, n_bootstrap=200, n_permutations=100)
