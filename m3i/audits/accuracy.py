"""How right each observer is, where it can be known: its calls against the verifier, its places against the checker.

All figures are plain JSON values; intervals take the problem as the unit, since several samples of one problem fail
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
    """An observer's calls, failing or not, against the verifier's.

    Args:
        audit: The audit; without a finding in an audited trace the observer calls it right.
        traces: The traces, with the verifier's word on each.
        level: Confidence level.

    Returns:
        n; the counts true_positive (wrong and flagged), false_positive (right and flagged), false_negative,
        true_negative; and as estimates with intervals `precision` (of the flagged, how many are wrong), `recall` (of
        the wrong, how many are flagged), `specificity` (of the right, how many are not flagged).

    Traces without a valid answer are in none of them: they are missing, not errors of judgment.
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
    """An observer's places against the first wrong step of each trace, as the checker quotes it.

    Args:
        audit: The observer's audit.
        truth: The checker's: its findings are taken as the place of the failure.
        traces: The audited traces.
        level: Confidence level.

    Returns:
        n_traces that both flag; `hit`, the share of them in which the observer's findings touch the checker's
        (estimate with interval); token-level `precision` (of the observer's tokens, how many are the checker's),
        `recall` and `f1`, summed over traces; None without a trace.

    Tokens after the first wrong step count against precision, though a consequence of a mistake may be quoted with
    good reason; `hit` does not mind them.
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
    """Every observer's places against those of the observer `truth`; empty where there is none to trust.

    Args:
        audits: Observer's alias → its audit.
        traces: The audited traces.
        truth: Alias of the observer that re-computes each step (`checker`), None where the panel has none.
        level: Confidence level.

    Returns:
        `truth` and `observers` (alias → `place_accuracy`), the trusted one left out.
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
    """How often an observer quotes what is not in the trace.

    Returns:
        `accepted` findings, `hallucinated` (quote not in the trace) and `ambiguous` ones (it stands there more than
        once and no step says which is meant); `rate` = hallucinated / all three, with Wilson's interval. Both kinds
        are dropped, but an ambiguous quote is not invented.
    """
    n = len(audit.findings) + audit.rejected_quotes + audit.ambiguous_quotes
    return {
        "accepted": len(audit.findings),
        "hallucinated": audit.rejected_quotes,
        "ambiguous": audit.ambiguous_quotes,
        "rate": asdict(proportion(successes=audit.rejected_quotes, n=n, level=level)),
    }
