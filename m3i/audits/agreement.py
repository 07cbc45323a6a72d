"""How well observers agree, each figure next to its value under chance.

Three questions, from coarse to fine: do two observers call the same traces failing, do they point at the same tokens,
and do they suspect the same layers? Whether they are correct is a separate question: see m3i.audits.accuracy and
m3i.audits.shared_errors. All figures are plain JSON values. docs/agreement.md explains how to read them.

Estimates are over traces. In every test the problem is the unit, and traces of one problem with the same text count
once, since they share one audit; `Unit` identifies them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from m3i.artifacts import Audit, LayerScores, Trace
from m3i.statistics import dealt_orders, holm
from m3i.statistics.reliability import alpha_of_counts

Unit = tuple[str, str]
"""Problem and text of a trace; traces that share both were read once."""


def measure_agreement(
    audits: Mapping[str, Audit],
    traces: Sequence[Trace],
    *,
    n_layers: int,
    seed: int = 0,
    n_permutations: int = 2000,
) -> dict[str, Any]:
    """Returns the agreement of every pair of observers on traces, token spans and layers.

    Args:
        audits: Observer's alias → its audit.
        traces: The audited traces.
        n_layers: Number of layers in the target.
        seed: Seed of the permutations.
        n_permutations: Draws behind each permutation p; the smallest p is 1 / (n_permutations + 1).

    Returns:
        `{"pairs": [{"observers": [a, b], "traces": ..., "spans": ..., "layers": ...}, ...]}`; see `trace_agreement`,
        `span_agreement` and `layer_agreement`. Only traces that both observers audited count. Layer overlaps carry
        `p_holm` next to `p`, corrected over all pairs of observers, separately for `overall` and `within`.
    """
    by_id = {t.id: t for t in traces}
    pairs: list[dict[str, Any]] = []
    for a, b in combinations(audits, 2):
        shared = sorted(set(audits[a].audited) & set(audits[b].audited) & set(by_id))
        calls = [flags(audits[name], shared) for name in (a, b)]
        masks = [token_masks(audits[name], shared, by_id) for name in (a, b)]
        layers = [_named_layers(audits[name], shared) for name in (a, b)]
        units = [(by_id[t].problem_id, by_id[t].text) for t in shared]
        rng = np.random.default_rng(seed)
        pairs.append(
            {
                "observers": [a, b],
                "traces": trace_agreement(calls[0], calls[1], units, rng, n_permutations),
                "spans": span_agreement(masks[0], masks[1], units, rng, n_permutations),
                "layers": layer_agreement(layers[0], layers[1], units, n_layers, rng, n_permutations),
            }
        )
    for scale in ("overall", "within"):
        correct_overlaps([row["layers"][scale] for row in pairs if row["layers"][scale]])
    return {"pairs": pairs}


# -- traces -----------------------------------------------------------------------------------


def trace_agreement(
    a: Sequence[bool], b: Sequence[bool], units: Sequence[Unit], rng: np.random.Generator, n_permutations: int
) -> dict[str, Any]:
    """Returns how far two observers agree on which traces fail.

    Args:
        a: Whether the first observer calls each trace failing.
        b: The same for the second observer.
        units: Problem and text of each trace.
        rng: Generator for the permutations.
        n_permutations: Number of permutations.

    Returns:
        n, both, only_first, only_second, neither; `observed`, the share of equal calls; `expected`, that share for
        independent observers with the same margins; Cohen's `kappa` (None if both observers make one and the same
        call throughout); and the one-sided `p`, the probability that both call at least this many distinct texts
        failing when the second observer's calls are permuted: whole problems among those with the same number of
        distinct texts, and texts within each problem. With one text per problem this is Fisher's exact test, up to
        the random draws.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales"; p as in Phipson & Smyth 2010.
    """
    n = len(a)
    both = sum(x and y for x, y in zip(a, b, strict=True))
    n_a, n_b = sum(a), sum(b)
    neither = n - n_a - n_b + both
    counts = {"n": n, "both": both, "only_first": n_a - both, "only_second": n_b - both, "neither": neither}
    if n == 0:
        return {**counts, "observed": None, "expected": None, "kappa": None, "p": None}
    observed = (both + neither) / n
    expected = (n_a * n_b + (n - n_a) * (n - n_b)) / n**2
    return {
        **counts,
        "observed": observed,
        "expected": expected,
        "kappa": (observed - expected) / (1 - expected) if expected < 1 else None,
        "p": _calls_p(np.array(a, dtype=bool), np.array(b, dtype=bool), units, rng, n_permutations),
    }


def _calls_p(
    a_N: np.ndarray, b_N: np.ndarray, units: Sequence[Unit], rng: np.random.Generator, n_permutations: int
) -> float:
    once = read_once(units)
    a_U, b_U = a_N[once], b_N[once]
    orders = dealt_orders(clusters=[units[i][0] for i in once], rng=rng, draws=n_permutations)
    both = int((a_U & b_U).sum())
    as_many = sum(int((a_U & b_U[order_U]).sum()) >= both for order_U in orders)
    return (1 + as_many) / (1 + n_permutations)


def read_once(units: Sequence[Unit]) -> list[int]:
    """Returns the index of the first trace of each problem and text."""
    return list({unit: i for i, unit in reversed(list(enumerate(units)))}.values())[::-1]


def overlap_p(shared: int, population: int, first: int, second: int) -> float:
    """Returns P(at least `shared` in common) for random subsets of sizes `first` and `second` of one population.

    With 27 layers and 5 picks each, p = 0.030 for at least 3 in common and 0.0014 for at least 4.
    """
    from scipy.stats import hypergeom

    return float(hypergeom.sf(shared - 1, population, first, second))


# -- spans ------------------------------------------------------------------------------------


def span_agreement(
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray],
    units: Sequence[Unit],
    rng: np.random.Generator,
    n_permutations: int,
) -> dict[str, Any]:
    """Returns the agreement on tokens over the traces that both observers call failing.

    Under chance, one observer's tokens are rotated around each trace, taken as a circle, by a uniformly random offset:
    this keeps the lengths and gaps of its spans, but not their position. The expected overlap in a trace of T tokens is
    then exactly |A| |B| / T. All traces of one problem are rotated by the same fraction of their length, since an
    observer looks at the same place in each of them.

    Args:
        a: One boolean mask over completion tokens per trace.
        b: The second observer's masks for the same traces.
        units: Problem and text of each trace.
        rng: Generator for the permutations.
        n_permutations: Number of random offsets drawn for each problem.

    Returns:
        n_traces; token-level `f1` (2 |A ∩ B| / (|A| + |B|), summed over traces), its value `expected` under chance,
        and `p`, the probability of an F1 at least as high; None without a trace. `alpha` is Krippendorff's over the
        labels "in a finding" and "not" of all tokens of all given traces, flagged or not (`n_tokens`); its model of
        chance takes tokens as independent, which neighbours are not, so it has no p here.
    """
    alpha = token_alpha(a, b)
    flagged = [(x, y, unit[0]) for x, y, unit in zip(a, b, units, strict=True) if x.any() and y.any()]
    kept = [(x, y) for x, y, _ in flagged]
    if not kept:
        return {"n_traces": 0, "f1": None, "expected": None, "p": None, **alpha}
    sizes = sum(int(x.sum() + y.sum()) for x, y in kept)
    overlap = sum(int((x & y).sum()) for x, y in kept)
    expected = sum(float(x.sum() * y.sum() / len(x)) for x, y in kept)
    drawn = np.zeros(n_permutations)
    offset = {problem: rng.random(n_permutations) for problem in dict.fromkeys(row[2] for row in flagged)}
    for x, y, problem in flagged:
        slid = np.array([int((x & np.roll(y, shift)).sum()) for shift in range(len(y))])
        drawn += slid[(offset[problem] * len(y)).astype(int)]
    return {
        "n_traces": len(kept),
        "f1": 2 * overlap / sizes,
        "expected": 2 * expected / sizes,
        "p": float((1 + (drawn >= overlap).sum()) / (1 + n_permutations)),
        **alpha,
    }


def token_alpha(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> dict[str, Any]:
    """Returns Krippendorff's `alpha` of two observers' token labels (None without any finding), and its `n_tokens`."""
    calls_T = np.concatenate([np.zeros(0, dtype=int), *(x.astype(int) + y for x, y in zip(a, b, strict=True))])
    alpha = alpha_of_counts(np.stack([2 - calls_T, calls_T], axis=1).astype(float))
    return {"alpha": alpha, "n_tokens": len(calls_T)}


# -- layers -----------------------------------------------------------------------------------


def layer_agreement(
    a: Sequence[frozenset[int]],
    b: Sequence[frozenset[int]],
    units: Sequence[Unit],
    n_layers: int,
    rng: np.random.Generator,
    n_permutations: int,
) -> dict[str, Any]:
    """Returns the agreement on layers over the traces in which both observers name some.

    Two observers may share a habit (always the middle layers) without having seen anything in a trace. Hence two
    comparisons: the layers each observer names most overall, against random picks; and the overlap within traces,
    against the overlap once traces are shuffled.

    Returns:
        n_traces; `overall`: each observer's most-named layers (as many as it names per trace on average; ties go to
        the lower layer), how many are `shared`, how many are `expected` from random picks, and the hypergeometric `p`;
        `within`: the mean number `shared` per trace, `expected_random` (random picks) and `expected_shuffled` (same
        picks, traces shuffled), and `p` against traces permuted by problem, each text once, as in `trace_agreement`.
        None without a trace.
    """
    named = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x and y]
    kept = [(a[i], b[i]) for i in named]
    if not kept:
        return {"n_traces": 0, "overall": None, "within": None}
    n = len(kept)
    tops = [_most_named([pair[side] for pair in kept]) for side in (0, 1)]
    shared = len(set(tops[0]) & set(tops[1]))
    overlap_NN = np.array([[len(x & y) for _, y in kept] for x, _ in kept])
    observed = float(np.trace(overlap_NN)) / n
    kept_units = [units[i] for i in named]
    once = read_once(kept_units)
    overlap_UU = overlap_NN[np.ix_(once, once)]
    orders = dealt_orders(clusters=[kept_units[i][0] for i in once], rng=rng, draws=n_permutations)
    shuffled = np.array([overlap_UU[np.arange(len(once)), order_U].sum() for order_U in orders])
    return {
        "n_traces": n,
        "overall": {
            "first": tops[0],
            "second": tops[1],
            "shared": shared,
            "expected": len(tops[0]) * len(tops[1]) / n_layers,
            "p": overlap_p(shared, n_layers, len(tops[0]), len(tops[1])),
        },
        "within": {
            "shared": observed,
            "expected_random": float(np.mean([len(x) * len(y) / n_layers for x, y in kept])),
            "expected_shuffled": float(overlap_NN.mean()),
            "p": float((1 + (shuffled >= np.trace(overlap_UU)).sum()) / (1 + n_permutations)),
        },
    }


def score_agreement(scores: LayerScores, k: int, candidates: Sequence[int]) -> list[dict[str, Any]]:
    """Returns whether an attributor picks the same k layers from each observer's findings.

    Observers that point at the same tokens lead to the same contrasts and so to the same layers: read this together
    with the agreement on spans.

    Args:
        scores: One attributor's scores.
        k: Number of layers picked by each observer's scores.
        candidates: Layers to select from.

    Returns:
        One row for each pair of observers with scores from at least one trace: the top k of each, how many are shared,
        how many are expected by chance, and the hypergeometric `p`. Put the rows of all attributors through
        `correct_overlaps`.
    """
    rows = {r.observer: r for r in scores.rows if r.observer != "joint" and r.n_traces}
    tops = {name: sorted(sorted(candidates, key=lambda i: (-row.scores[i], i))[:k]) for name, row in rows.items()}
    out = []
    for a, b in combinations(tops, 2):
        shared = len(set(tops[a]) & set(tops[b]))
        out.append(
            {
                "observers": [a, b],
                "first": tops[a],
                "second": tops[b],
                "shared": shared,
                "expected": k * k / len(candidates),
                "p": overlap_p(shared, len(candidates), k, k),
            }
        )
    return out


def correct_overlaps(rows: Sequence[dict[str, Any]]) -> None:
    """Adds to each row `p_holm`: its `p`, corrected over all given rows (m3i.statistics.holm)."""
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p


# -- from audits ------------------------------------------------------------------------------


def flags(audit: Audit, trace_ids: Sequence[str]) -> list[bool]:
    """Returns whether the observer calls each trace failing, that is, has a finding in it."""
    failing = {f.trace_id for f in audit.findings}
    return [trace_id in failing for trace_id in trace_ids]


def token_masks(audit: Audit, trace_ids: Sequence[str], traces: Mapping[str, Trace]) -> list[np.ndarray]:
    """Returns, for each trace, which completion tokens the observer's findings cover."""
    masks = {trace_id: np.zeros(len(traces[trace_id].completion_ids), dtype=bool) for trace_id in trace_ids}
    for finding in audit.findings:
        if finding.trace_id in masks:
            masks[finding.trace_id][finding.token_start : finding.token_end] = True
    return [masks[trace_id] for trace_id in trace_ids]


def _named_layers(audit: Audit, trace_ids: Sequence[str]) -> list[frozenset[int]]:
    named: dict[str, set[int]] = {trace_id: set() for trace_id in trace_ids}
    for finding in audit.findings:
        if finding.trace_id in named:
            named[finding.trace_id].update(finding.layers)
    return [frozenset(named[trace_id]) for trace_id in trace_ids]


def _most_named(picks: Sequence[frozenset[int]]) -> list[int]:
    counts = Counter(layer for layers in picks for layer in layers)
    size = round(sum(len(layers) for layers in picks) / len(picks))
    return sorted(sorted(counts, key=lambda layer: (-counts[layer], layer))[: max(size, 1)])
