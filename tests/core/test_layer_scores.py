"""Scores and their intervals: the trace is the unit, the problem the cluster."""

import numpy as np
import pytest

from m3i.errors import StageError
from m3i.interfaces import AttributionRows
from m3i.stages.attribute import aggregate, cluster_bootstrap


def rows(entries, left_out=None):
    """Entries: (observer, trace, values)."""
    return AttributionRows(
        observers=[e[0] for e in entries],
        trace_ids=[e[1] for e in entries],
        values_NL=np.array([e[2] for e in entries], dtype=float),
        left_out=left_out or {},
    )


def test_joint_averages_observers_within_a_trace_first():
    scores = aggregate(
        rows([("a", "t1", [1, 0]), ("b", "t1", [3, 0]), ("a", "t2", [8, 4])], {"b: why": 2}), "lens", n_layers=2
    )
    by_name = {row.observer: row for row in scores.rows}
    assert list(by_name) == ["a", "b", "joint"]
    assert by_name["a"].scores == (4.5, 2.0)
    assert by_name["b"].scores == (3.0, 0.0)
    assert scores.joint().scores == (5.0, 2.0)  # t1: 2, t2: 8; three rows alone would give 4
    assert [row.n_traces for row in scores.rows] == [2, 1, 2]
    assert scores.attributor == "lens"
    assert scores.left_out == {"b: why": 2}


def test_the_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits, n = 0, 300
    for i in range(n):
        values = generator.normal(size=(30, 1))
        low, high = cluster_bootstrap(values, np.arange(30), 300, seed=i)
        hits += bool(low[0] <= 0 <= high[0])
    assert 0.89 <= hits / n <= 0.98


def test_samples_of_one_problem_are_drawn_together():
    """Ten problems of eight identical samples: as sure as ten traces, not as eighty."""
    generator = np.random.default_rng(1)
    per_problem = generator.normal(size=10)
    entries = [("a", f"{p}-{s}", [per_problem[p]]) for p in range(10) for s in range(8)]
    problem_of = {f"{p}-{s}": str(p) for p in range(10) for s in range(8)}
    clustered = aggregate(rows(entries), "x", 1, seed=0, problem_of=problem_of).joint()
    loose = aggregate(rows(entries), "x", 1, seed=0).joint()
    ten = aggregate(rows([("a", str(p), [per_problem[p]]) for p in range(10)]), "x", 1, seed=0).joint()
    width = [row.high[0] - row.low[0] for row in (clustered, loose, ten)]
    assert width[0] == pytest.approx(width[2], rel=0.1)
    assert width[0] > 2.3 * width[1]


def test_one_trace_has_no_interval_and_seeds_repeat():
    one = aggregate(rows([("a", "t", [1.0, 2.0])]), "x", 2).joint()
    assert one.low == one.scores == one.high
    entries = [("a", f"t{i}", [float(i**1.5)]) for i in range(9)]
    assert aggregate(rows(entries), "x", 1, seed=4) == aggregate(rows(entries), "x", 1, seed=4)
    assert aggregate(rows(entries), "x", 1, seed=4) != aggregate(rows(entries), "x", 1, seed=5, n_bootstrap=500)


def test_an_attributor_without_a_row_scores_nothing_and_says_why():
    scores = aggregate(rows([], {"checker: names no layer": 7}), "votes", 2)
    assert (scores.joint().scores, scores.joint().n_traces) == ((0.0, 0.0), 0)
    assert scores.left_out == {"checker: names no layer": 7}


@pytest.mark.parametrize(
    ("given_rows", "n_layers", "message"),
    [
        (rows([("a", "t", [1, 2, 3])]), 2, "shape \\(1, 3\\) for 1 traces, 1 observers and 2 layers"),
        (rows([("a", "t", [1, float("nan")])]), 2, "gave nan for layer 1 of trace t"),
        (rows([("joint", "t", [1, 2])]), 2, "an observer is named 'joint'"),
    ],
)
def test_bad_rows_are_named(given_rows, n_layers, message):
    with pytest.raises(StageError, match=message):
        aggregate(given_rows, "votes", n_layers)
