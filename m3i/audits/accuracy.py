"""How accurate each observer is: its calls against the verifier's, the places it quotes against the checker's.

All figures are plain JSON values; intervals take the problem as the unit, since samples of one problem tend to fail
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from m3i.artifacts import Audit, Trace
from m3i.audits.agreement import flags, token_masks
from m3i.statistics import clustered_proportion, proportion


def call_accuracy(audit: Audit, traces: Sequence[Trace], *, level: float = 0.95) -> dict[str, Any]:
    """Compares an observer's calls, failing or not, with the verifier's.

    Args:
        audit: The audit; an audited trace without a finding is one that the observer calls correct.
        traces: The traces, each with the verifier's result.
        level: Confidence level.

    Returns:
        n; the counts true_positive (incorrect and flagged), false_positive (correct and flagged), false_negative,
        true_negative; and estimates with intervals: `precision` (share of flagged traces that are incorrect), `recall`
        (share of incorrect traces that are flagged), `specificity` (share of correct traces that are not flagged).

    Traces without a valid reply count in none of these: they are missing, not misjudged.
    """
    audited = set(audit.audited)
    kept = [t for t in traces if t.id in audited]
    called_N = flags(audit, [t.id for t in kept])
    rows = [(t.problem_id, not t.correct, called) for t, called in zip(kept, called_N, strict=True)]

    def share(of: Sequence[tuple[str, bool]]) -> dict[str, Any]:
        return asdict(
            clustered_proportion(clusters=[problem for problem, _ in of], successes=[hit for _, hit in of], level=level)
        )

    return {
        "n": len(rows),
        "true_positive": sum(wrong and called for _, wrong, called in rows),
        "false_positive": sum(called and not wrong for _, wrong, called in rows),
        "false_negative": sum(wrong and not called for _, wrong, called in rows),
        "true_negative": sum(not wrong and not called for _, wrong, called in rows),
        "precision": share([(problem, wrong) for problem, wrong, called in rows if called]),
        "recall": share([(problem, called) for problem, wrong, called in rows if wrong]),
        "specificity": share([(problem, not called) for problem, wrong, called in rows if not wrong]),
    }


def place_accuracy(audit: Audit, truth: Audit, traces: Sequence[Trace], *, level: float = 0.95) -> dict[str, Any]:
    """Compares the places an observer quotes with the first wrong step of each trace, as the checker quotes it.

    Args:
        audit: The observer's audit.
        truth: The checker's audit; its findings are taken as the place of the failure.
        traces: The audited traces.
        level: Confidence level.

    Returns:
        n_traces that both flag; `hit`, the share of these in which the observer's findings overlap the checker's
        (estimate with interval); token-level `precision` (share of the observer's tokens that are also the checker's),
        `recall` and `f1`, summed over traces; None without a trace.

    Tokens after the first wrong step count against precision, although an observer may have good reason to quote a
    consequence of the mistake; `hit` is not affected by them.
    """
    both = set(audit.audited) & set(truth.audited)
    by_id = {t.id: t for t in traces if t.id in both}
    ids = sorted(by_id)
    masks = zip(ids, token_masks(audit, ids, by_id), token_masks(truth, ids, by_id), strict=True)
    kept = [(trace_id, said, true) for trace_id, said, true in masks if said.any() and true.any()]
    shared = sum(int((said & true).sum()) for _, said, true in kept)
    n_said, n_true = sum(int(said.sum()) for _, said, _ in kept), sum(int(true.sum()) for _, _, true in kept)
    hit = clustered_proportion(
        clusters=[by_id[trace_id].problem_id for trace_id, _, _ in kept],
        successes=[bool(np.any(said & true)) for _, said, true in kept],
        level=level,
    )
    return {
        "n_traces": len(kept),
        "hit": asdict(hit),
        "precision": shared / n_said if kept else None,
        "recall": shared / n_true if kept else None,
        "f1": 2 * shared / (n_said + n_true) if kept else None,
    }


def places_section(
    audits: Mapping[str, Audit], traces: Sequence[Trace], *, truth: str | None, level: float = 0.95
) -> dict[str, Any]:
    """Compares every observer's quoted places with those of the observer `truth`; empty if `truth` is None.

    Args:
        audits: Observer's alias → its audit.
        traces: The audited traces.
        truth: Alias of the observer that recomputes each step (`checker`); None if the panel has none.
        level: Confidence level.

    Returns:
        `truth`, and `observers`: alias → `place_accuracy` for every observer except `truth`.
    """
    if truth is None:
        return {"truth": "", "observers": {}}
    return {
        "truth": truth,
        "observers": {
            alias: place_accuracy(audit, audits[truth], traces, level=level)
            for alias, audit in audits.items()
            if alias != truth
        },
    }


def citation_rate(audit: Audit, *, level: float = 0.95) -> dict[str, Any]:
    """Returns how often an observer quotes text that is not in the trace.

    Returns:
        The number of findings that are `accepted`, `hallucinated` (the quote is not in the trace) and `ambiguous` (the
        quote occurs more than once and no step says which is meant); `rate` = hallucinated / (sum of all three), with
        Wilson's interval. Both kinds are dropped, but an ambiguous quote is not an invented one.
    """
    n = len(audit.findings) + audit.rejected_quotes + audit.ambiguous_quotes
    return {
        "accepted": len(audit.findings),
        "hallucinated": audit.rejected_quotes,
        "ambiguous": audit.ambiguous_quotes,
        "rate": asdict(proportion(successes=audit.rejected_quotes, n=n, level=level)),
    }
