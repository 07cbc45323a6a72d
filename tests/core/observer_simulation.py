"""How often tests of agreement call observers that know nothing of each other in agreement: `python FILE`."""

from __future__ import annotations

import numpy as np

from m3i.audits.agreement import span_agreement, trace_agreement

CASES = {
    "16 problems × 2 samples, equal texts": (16, 2, "equal"),
    "40 problems × 4 samples, equal texts": (40, 4, "equal"),
    "40 problems × 4 samples, own texts, calls by problem": (40, 4, "own"),
    "40 problems × 4 samples, texts equal or not, calls by problem": (40, 4, "mixed"),
}
"""Name → problems, samples, texts of one problem."""


def units_of(n_problems, samples, texts, rng):
    """(problem, text) of each trace; in the mixed case the number of distinct texts varies by problem."""
    units = []
    for p in range(n_problems):
        distinct = {"equal": 1, "own": samples, "mixed": int(rng.integers(1, samples + 1))}[texts]
        units += [(f"p{p}", f"text {min(s, distinct - 1)}") for s in range(samples)]
    return units


def calls(units, rng):
    """One observer: its own rate of failures for each problem, one call a text."""
    rate = {problem: rng.beta(0.8, 0.8) for problem, _ in dict.fromkeys(units)}
    said = {unit: bool(rng.random() < rate[unit[0]]) for unit in dict.fromkeys(units)}
    return [said[unit] for unit in units]


def masks(units, rng, *, length=30, span=6):
    """One observer: one span at a place of its own in each problem, a step or two from it in the problem's other texts.

    Places go around the text, as those of the test do.
    """
    place = {problem: int(rng.integers(length)) for problem, _ in dict.fromkeys(units)}
    said = {}
    for unit in dict.fromkeys(units):
        said[unit] = np.roll(np.arange(length) < span, place[unit[0]] + int(rng.integers(-2, 3)))
    return [said[unit] for unit in units]


def false_positives(case, *, runs, n_permutations=199, seed=0, traces_as_units=False):
    """Share of p ≤ 0.05 among pairs of independent observers: (on traces, on tokens).

    With `traces_as_units` the tests are told that each trace is a problem of its own: what they would do without regard
    to problems.
    """
    rng = np.random.default_rng(seed)
    low = np.zeros(2)
    for _ in range(runs):
        units = units_of(*CASES[case], rng)
        told = [(str(i), "") for i in range(len(units))] if traces_as_units else units
        traces = trace_agreement(calls(units, rng), calls(units, rng), told, rng, n_permutations)
        spans = span_agreement(masks(units, rng), masks(units, rng), told, rng, n_permutations)
        low += [traces["p"] <= 0.05, spans["p"] <= 0.05]
    return tuple((low / runs).tolist())


if __name__ == "__main__":
    for name in CASES:
        for traces_as_units in (False, True):
            on_traces, on_tokens = false_positives(name, runs=1000, traces_as_units=traces_as_units)
            unit = "trace" if traces_as_units else "problem"
            print(f"{name}, unit the {unit}: traces {on_traces:.1%}, tokens {on_tokens:.1%}", flush=True)
