"""What was measured and found in the train traces, condensed to what the report draws, as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from m3i.artifacts import Audit, Contrasts, Finding, Problem, Telemetry, Trace, Traces
from m3i.audits.accuracy import call_accuracy, citation_rate
from m3i.results.judges import calls_section
from m3i.results.model import finite

BINS = 24
"""Columns of the heat maps: equal parts of a completion's length."""
TEXT_BUDGET = 400_000
"""Characters of train traces and findings that a result holds; the store has all of them."""
EXAMPLES = 8
"""Train traces that are always held in full, however long they are."""


def traces_section(traces: Traces, audits: Mapping[str, Audit]) -> dict[str, Any]:
    """Counts of the sampled train traces; `audited` by at least one observer."""
    lengths = [len(t.completion_ids) for t in traces.traces]
    return {
        "n": len(traces.traces),
        "n_problems": len({t.problem_id for t in traces.traces}),
        "audited": len({t for audit in audits.values() for t in audit.audited}),
        "right": sum(t.correct for t in traces.traces),
        "truncated": sum(t.truncated for t in traces.traces),
        "mean_tokens": float(np.mean(lengths)) if lengths else None,
        "generation_time_s": traces.generation_time_s,
    }


def telemetry_section(telemetry: Telemetry, traces: Traces, audits: Mapping[str, Audit]) -> dict[str, Any]:
    """Layer × position maps, layer means inside findings and in correct traces, expert load.

    The maps average over traces at equal fractions of their length. `lens_bits` is log2(1 + rank) of the token that
    came next when a layer's output is read through the unembedding: 0 means that the layer already ranks it first.
    """
    by_id = {t.id: t for t in traces.traces}
    n = telemetry.lens_rank_LS.shape[1]
    position_S, in_finding_S, right_S = np.zeros(n), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    spans: dict[str, list[tuple[int, int]]] = {}
    for audit in audits.values():
        for finding in audit.findings:
            spans.setdefault(finding.trace_id, []).append((finding.token_start, finding.token_end))
    for trace_id in telemetry.trace_ids:
        columns = telemetry.columns(trace_id)
        length = columns.stop - columns.start
        position_S[columns] = (np.arange(length) + 0.5) / max(length, 1)
        right_S[columns] = trace_id in by_id and by_id[trace_id].correct
        for start, end in spans.get(trace_id, []):
            in_finding_S[columns.start + start : min(columns.start + end, columns.stop)] = True
    bits_LS = np.log2(1.0 + telemetry.lens_rank_LS.astype(float))
    bin_S = np.minimum((position_S * BINS).astype(int), BINS - 1)
    groups = {"finding": in_finding_S, "right": right_S}
    measures = {
        "lens_bits": bits_LS,
        "lens_entropy": telemetry.lens_entropy_LS,
        "update_norm": telemetry.update_norm_LS,
        "attention_entropy": telemetry.attention_entropy_LS,
        "router_entropy": telemetry.router_entropy_RS,
    }
    return {
        "n_traces": len(telemetry.trace_ids),
        "n_tokens": n,
        "moe_layers": list(telemetry.moe_layers),
        "bins": BINS,
        "maps": {
            "lens_bits": _binned(bits_LS, bin_S),
            "lens_entropy": _binned(telemetry.lens_entropy_LS, bin_S),
        },
        "tokens": {name: int(mask_S.sum()) for name, mask_S in groups.items()},
        "profiles": {
            measure: {name: _row_means(values_LS, mask_S) for name, mask_S in groups.items()}
            for measure, values_LS in measures.items()
        },
        "expert_load": [[finite(x) for x in row] for row in np.asarray(telemetry.expert_load_RE).tolist()],
    }


def _binned(values_LS: np.ndarray, bin_S: np.ndarray) -> list[list[float | None]]:
    """Mean of each row in each bin; None for a bin without tokens."""
    counts_B = np.bincount(bin_S, minlength=BINS)
    sums_LB = np.stack([np.bincount(bin_S, weights=row, minlength=BINS) for row in np.asarray(values_LS, dtype=float)])
    return [[finite(x / c) if c else None for x, c in zip(row, counts_B, strict=True)] for row in sums_LB.tolist()]


def _row_means(values_LS: np.ndarray, mask_S: np.ndarray) -> list[float | None]:
    if not mask_S.any():
        return [None] * len(values_LS)
    return [finite(x) for x in np.asarray(values_LS, dtype=float)[:, mask_S].mean(axis=1).tolist()]


def observers_section(audits: Mapping[str, Audit], traces: Traces, *, level: float) -> dict[str, Any]:
    """One entry per observer: what it found, how that compares with the verifier, what it missed and cost."""
    right = {t.id: t.correct for t in traces.traces}
    section = {}
    for alias, audit in audits.items():
        flagged = {f.trace_id for f in audit.findings}
        wrong_audited = [t for t in audit.audited if right.get(t) is False]
        right_audited = [t for t in audit.audited if right.get(t)]
        section[alias] = {
            "observer": audit.observer,
            "n_audited": len(audit.audited),
            "n_missing": len(audit.missing),
            "missing_reasons": dict(Counter(audit.missing.values()).most_common(5)),
            "n_findings": len(audit.findings),
            "n_flagged": len(flagged),
            "kinds": dict(Counter(f.kind for f in audit.findings).most_common()),
            "wrong_audited": len(wrong_audited),
            "wrong_flagged": sum(t in flagged for t in wrong_audited),
            "right_audited": len(right_audited),
            "right_flagged": sum(t in flagged for t in right_audited),
            "layers_named": dict(Counter(str(layer) for f in audit.findings for layer in f.layers).most_common()),
            "citations": citation_rate(audit, level=level),
            "accuracy": call_accuracy(audit, traces.traces, level=level),
            "calls": calls_section(audit.calls),
            "notes": list(audit.notes),
        }
    return section


def contrasts_section(contrasts: Contrasts) -> dict[str, Any]:
    """How many findings became contrasts, by origin, and why others did not."""
    return {
        "n": len(contrasts.contrasts),
        "n_traces": len({c.trace_id for c in contrasts.contrasts}),
        "origins": dict(Counter(c.origin for c in contrasts.contrasts)),
        "left_out": dict(contrasts.left_out),
    }


def examples_section(audits: Mapping[str, Audit], traces: Traces, train: Mapping[str, Problem]) -> list[dict[str, Any]]:
    """Audited train traces with their findings, as many as `TEXT_BUDGET` allows.

    Traces of one problem with the same text and the same findings share an entry; `times` counts them. The order is one
    trace of each problem, then a second of each, and so on; in each round, and within a problem, incorrect traces and
    those flagged by most observers come first.
    """
    findings: dict[str, list[tuple[str, Finding]]] = {}
    audited: dict[str, list[str]] = {}
    for alias, audit in audits.items():
        for finding in audit.findings:
            findings.setdefault(finding.trace_id, []).append((alias, finding))
        for trace_id in audit.audited:
            audited.setdefault(trace_id, []).append(alias)
    entries: dict[tuple[Any, ...], dict[str, Any]] = {}
    for trace in traces.traces:
        if trace.id in audited and trace.problem_id in train:
            entry = _example(trace, train[trace.problem_id], findings.get(trace.id, []), audited[trace.id])
            key = (trace.problem_id, trace.text, trace.correct, repr(entry["findings"]), repr(entry["audited"]))
            entries.setdefault(key, entry)["times"] += 1
    return _within_budget(_in_turn(list(entries.values())))


def _example(trace: Trace, problem: Problem, findings: list[tuple[str, Finding]], audited: list[str]) -> dict[str, Any]:
    return {
        "trace_id": trace.id,
        "problem_id": problem.id,
        "times": 0,
        "audited": audited,
        "prompt": problem.prompt,
        "reference": problem.answer,
        "text": trace.text,
        "correct": trace.correct,
        "answer": trace.answer,
        "findings": [
            {
                "observer": alias,
                "start": f.start,
                "end": f.end,
                "kind": f.kind,
                "reason": f.reason,
                "correction": f.correction,
                "severity": finite(f.severity),
                "confidence": finite(f.confidence),
                "layers": list(f.layers),
            }
            for alias, f in findings
        ],
    }


def _in_turn(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries, one per problem in each round, each problem's most informative trace first."""

    def weight(entry: dict[str, Any]) -> tuple[bool, int]:
        return entry["correct"], -len({f["observer"] for f in entry["findings"]})

    rounds: Counter[str] = Counter()
    placed = []
    for entry in sorted(entries, key=weight):
        placed.append((rounds[entry["problem_id"]], entry))
        rounds[entry["problem_id"]] += 1
    return [entry for _, entry in sorted(placed, key=lambda pair: (pair[0], weight(pair[1])))]


def _within_budget(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    held, size = 0, 0
    for entry in entries:
        notes = sum(len(f["kind"]) + len(f["reason"]) + len(f["correction"] or "") for f in entry["findings"])
        size += len(entry["prompt"]) + len(entry["text"]) + notes
        if size > TEXT_BUDGET and held >= EXAMPLES:
            break
        held += 1
    return entries[:held]
