"""How far observers agree, each figure beside what chance alone would give.

Three questions, from coarse to fine: do two observers call the same traces failing, do they point at the same tokens,
and do they suspect the same layers? Whether they are right is another one: m3i.observer_accuracy and
m3i.error_correlation. All figures are plain JSON values. docs/agreement.md says how to read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from m3i.artifacts import Audit, LayerScores, Trace
from m3i.statistics import holm
from m3i.statistics.reliability import alpha_of_counts


def measure_agreement(
    audits: Mapping[str, Audit],
    traces: Sequence[Trace],
    *,
    n_layers: int,
    seed: int = 0,
    n_permutations: int = 2000,
) -> dict[str, Any]:
    """Agreement of every two observers on traces, token spans and layers.

    Args:
        audits: Observer's alias → its audit.
        traces: The audited traces.
        n_layers: Layers of the target.
        seed: Of the permutations.
        n_permutations: Draws behind each permutation p; the smallest p is 1 / (n_permutations + 1).

    Returns:
        `{"pairs": [{"observers": [a, b], "traces": ..., "spans": ..., "layers": ...}, ...]}`; see `trace_agreement`,
        `span_agreement` and `layer_agreement`. Only traces that both observers answered count. The overlaps of layers
        carry `p_holm` beside `p`: corrected over all pairs of observers, `overall` and `within` each by itself.
    """
    by_id = {t.id: t for t in traces}
    pairs: list[dict[str, Any]] = []
    for a, b in combinations(audits, 2):
        shared = sorted(set(audits[a].audited) & set(audits[b].audited) & set(by_id))
        calls = [flags(audits[name], shared) for name in (a, b)]
        masks = [token_masks(audits[name], shared, by_id) for name in (a, b)]
        layers = [_named_layers(audits[name], shared) for name in (a, b)]
        rng = np.random.default_rng(seed)
        pairs.append(
            {
                "observers": [a, b],
                "traces": trace_agreement(calls[0], calls[1]),
                "spans": span_agreement(masks[0], masks[1], rng, n_permutations),
                "layers": layer_agreement(layers[0], layers[1], n_layers, rng, n_permutations),
            }
        )
    for scale in ("overall", "within"):
        correct_overlaps([row["layers"][scale] for row in pairs if row["layers"][scale]])
    return {"pairs": pairs}


# -- traces -----------------------------------------------------------------------------------


def trace_agreement(a: Sequence[bool], b: Sequence[bool]) -> dict[str, Any]:
    """Agreement on failing or not.

    Returns:
        n, both, only_first, only_second, neither; `observed` share of equal calls, the share `expected` of two
        observers with these margins that know nothing of each other, Cohen's `kappa` (None where both always say the
        same one thing), and `p`, the chance of at least so many traces called failing by both (hypergeometric,
        one-sided).

    Source: Cohen 1960, "A coefficient of agreement for nominal scales"; Fisher's exact test.
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
        "p": overlap_p(both, n, n_a, n_b),
    }


def overlap_p(shared: int, population: int, first: int, second: int) -> float:
    """P(at least `shared` in common) for two random subsets of sizes `first` and `second` of one population.

    For 27 layers and 5 picks each: at least 3 in common has p = 0.030, at least 4 p = 0.0014.
    """
    from scipy.stats import hypergeom

    return float(hypergeom.sf(shared - 1, population, first, second))


# -- spans ------------------------------------------------------------------------------------


def span_agreement(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray], rng: np.random.Generator, n_permutations: int
) -> dict[str, Any]:
    """Agreement on tokens, over the traces that both observers call failing.

    Chance slides one observer's tokens around each trace's circle of tokens, every offset alike: lengths and gaps of
    its spans are kept, their place is not. The expected overlap of a trace of T tokens is then |A| |B| / T, exactly.

    Args:
        a: One boolean mask over completion tokens a trace.
        b: The other observer's, same traces.
        rng: For the permutations.
        n_permutations: Number of random offsets drawn for each trace.

    Returns:
        n_traces, token-level `f1` (2 |A ∩ B| / (|A| + |B|), summed over traces), `expected` F1 under chance and `p`,
        the chance of an F1 as high; None without a trace. `alpha` is Krippendorff's over the labels "in a finding" and
        "not" of all tokens of all traces given, flagged or not (`n_tokens`); its own chance takes tokens as
        independent, which neighbours are not, so it has no p here.
    """
    alpha = token_alpha(a, b)
    kept = [(x, y) for x, y in zip(a, b, strict=True) if x.any() and y.any()]
    if not kept:
        return {"n_traces": 0, "f1": None, "expected": None, "p": None, **alpha}
    sizes = sum(int(x.sum() + y.sum()) for x, y in kept)
    overlap = sum(int((x & y).sum()) for x, y in kept)
    expected = sum(float(x.sum() * y.sum() / len(x)) for x, y in kept)
    drawn = np.zeros(n_permutations)
    for x, y in kept:
        slid = np.array([int((x & np.roll(y, shift)).sum()) for shift in range(len(y))])
        drawn += slid[rng.integers(len(y), size=n_permutations)]
    return {
        "n_traces": len(kept),
        "f1": 2 * overlap / sizes,
        "expected": 2 * expected / sizes,
        "p": float((1 + (drawn >= overlap).sum()) / (1 + n_permutations)),
        **alpha,
    }


def token_alpha(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> dict[str, Any]:
    """Krippendorff's `alpha` of two observers' token labels and the `n_tokens` behind it; None without any finding."""
    calls_T = np.concatenate([np.zeros(0, dtype=int), *(x.astype(int) + y for x, y in zip(a, b, strict=True))])
    alpha = alpha_of_counts(np.stack([2 - calls_T, calls_T], axis=1).astype(float))
    return {"alpha": alpha, "n_tokens": len(calls_T)}


# -- layers -----------------------------------------------------------------------------------


def layer_agreement(
    a: Sequence[frozenset[int]],
    b: Sequence[frozenset[int]],
    n_layers: int,
    rng: np.random.Generator,
    n_permutations: int,
) -> dict[str, Any]:
    """Agreement on layers, over the traces in which both observers name some.

    Two observers may share a habit (always the middle layers) without having seen anything in a trace. So there are two
    comparisons: the observers' most-named layers overall against random picks, and the overlap within traces against
    the overlap of findings whose traces were shuffled.

    Returns:
        n_traces; `overall`: each observer's most-named layers (as many as it names in a trace on average; ties go to
        the lower layer), how many are `shared`, how many are `expected` of random picks, and the hypergeometric `p`;
        `within`: mean number `shared` in a trace, `expected_random` (random picks) and `expected_shuffled` (same
        picks, traces shuffled), and `p` against shuffled traces. None without a trace.
    """
    kept = [(x, y) for x, y in zip(a, b, strict=True) if x and y]
    if not kept:
        return {"n_traces": 0, "overall": None, "within": None}
    n = len(kept)
    tops = [_most_named([pair[side] for pair in kept]) for side in (0, 1)]
    shared = len(set(tops[0]) & set(tops[1]))
    overlap_NN = np.array([[len(x & y) for _, y in kept] for x, _ in kept])
    observed = float(np.trace(overlap_NN)) / n
    shuffled = np.array([overlap_NN[np.arange(n), rng.permutation(n)].mean() for _ in range(n_permutations)])
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
            "p": float((1 + (shuffled >= observed - 1e-12).sum()) / (1 + n_permutations)),
        },
    }


def score_agreement(scores: LayerScores, k: int, candidates: Sequence[int]) -> list[dict[str, Any]]:
    """Whether an attributor finds the same k layers from each observer's findings.

    Observers that point at the same tokens lead to the same contrasts and so to the same layers: read this beside the
    agreement on spans.

    Args:
        scores: One attributor's scores.
        k: Layers that each observer's scores select.
        candidates: Layers to select from.

    Returns:
        One row for every two observers: their top k, how many are shared, expected by chance, and the hypergeometric
        `p`. Put the rows of all attributors through `correct_overlaps`.
    """
    rows = {r.observer: r for r in scores.rows if r.observer != "joint"}
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
    """Gives each row its `p_holm`: its `p`, corrected for all rows being looked at (m3i.statistics.holm)."""
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p


# -- from audits ------------------------------------------------------------------------------


def flags(audit: Audit, trace_ids: Sequence[str]) -> list[bool]:
    """Whether the observer calls each trace failing: whether it has a finding there."""
    failing = {f.trace_id for f in audit.findings}
    return [trace_id in failing for trace_id in trace_ids]


def token_masks(audit: Audit, trace_ids: Sequence[str], traces: Mapping[str, Trace]) -> list[np.ndarray]:
    """Which completion tokens of each trace the observer's findings cover."""
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
