"""How often errors of observers that know nothing of each other look shared, at equal truth: `python FILE`."""

from __future__ import annotations

import numpy as np

from m3i.audits.shared_errors import pair_errors, panel_errors

MISSES, FALSE_ALARMS, WRONG = 0.6, 0.05, 0.5
CASES = {
    "30 problems × 1 sample": (30, 1, False),
    "60 problems × 1 sample": (60, 1, False),
    "116 problems × 1 sample": (116, 1, False),
    "20 problems × 4 samples": (20, 4, False),
    "40 problems × 4 samples": (40, 4, False),
    "40 problems × 4 samples, rates by problem": (40, 4, True),
}
"""Name → problems, samples, whether each observer has a rate of its own for each problem."""


def observers(case, rng, *, shared=0.0):
    """Errors of two observers, the truth, and each trace's problem. A share of traces has one error drawn for both."""
    n_problems, samples, by_problem = CASES[case]
    n = n_problems * samples
    wrong_N = np.repeat(rng.beta(1, 1, n_problems) if samples > 1 else np.full(n_problems, WRONG), samples)
    wrong_N = rng.random(n) < wrong_N
    together_N, draw_N = rng.random(n) < shared, rng.random(n)
    errors = []
    for _ in range(2):
        # with rates by problem an observer flags much in some problems and little in others, right or wrong
        flags_N = np.repeat(rng.beta(0.6, 0.9, n_problems), samples)
        rate_N = np.where(wrong_N, 1 - flags_N, flags_N) if by_problem else np.where(wrong_N, MISSES, FALSE_ALARMS)
        errors.append(np.where(together_N, draw_N, rng.random(n)) < rate_N)
    return errors, wrong_N, [f"p{i // samples}" for i in range(n)]


def rates(case, *, runs, shared=0.0, n_permutations=199, n_bootstrap=500, seed=0, given_truth=True):
    """Over the runs: share of p ≤ 0.05, mean n_eff, share of intervals that hold 2, share that lie below 2.

    Without `given_truth` all traces are one class, which measures what is hard to call and not what observers share.
    """
    rng = np.random.default_rng(seed)
    p, worth, holds, below = [], [], [], []
    for _ in range(runs):
        (a_N, b_N), wrong_N, problems = observers(case, rng, shared=shared)
        if not given_truth:
            wrong_N = np.zeros_like(wrong_N)
        row = pair_errors(a_N, b_N, wrong_N=wrong_N, problems=problems, rng=rng, n_permutations=n_permutations)
        p += [row["p"]] if row["p"] is not None else []
        found = panel_errors(
            {"a": a_N, "b": b_N}, wrong_N=wrong_N, problems=problems, n_bootstrap=n_bootstrap, rng=rng
        )["n_eff"]
        if found["low"] is not None:
            worth.append(found["value"])
            holds.append(found["high"] >= 2)
            below.append(found["high"] < 2)
    return {
        "p": float(np.mean(np.array(p) <= 0.05)),
        "n_eff": float(np.mean(worth)),
        "holds_two": float(np.mean(holds)),
        "says_shared": float(np.mean(below)),
    }


if __name__ == "__main__":
    for shared, given_truth in ((0.0, True), (0.5, True), (0.0, False)):
        print(f"one error drawn for both in {shared:.0%} of traces; truth {'held fixed' if given_truth else 'ignored'}")
        for case in CASES:
            runs = 2000 if given_truth and not shared else 500
            found = rates(case, runs=runs, shared=shared, given_truth=given_truth)
            print(f"  {case}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True)
