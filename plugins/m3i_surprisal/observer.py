"""Finds the step at which the model's own token distribution breaks down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from m3i import Audit, AuditRequest, Component, Finding, Trace, make_finding, require

from .calibration import auroc, conformal_threshold, fold_of, smallest_pool
from .lines import LINE, TOKEN, Line, largest, score_lines
from .suspects import LayerBaseline


@dataclass(kw_only=True)
class Surprisal(Component):
    """Quotes the first line that surprises the model more than its correct traces do, at a set false-positive rate.

    Surprisal is −log p of each sampled token under the model at temperature 1. The threshold for a trace comes from the
    correct traces of *other* problems (cross-fitting), as a conformal quantile of each trace's largest score: at most
    `false_positive_rate` of correct traces are flagged. Whether a trace is correct is used only for this calibration
    and for the figures in the notes. An error that the model is sure of is invisible to this observer.
    """

    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    false_positive_rate: float = 0.05
    """Share of correct traces that may be flagged, in (0, 0.5]."""
    statistic: str = TOKEN
    """A line's score: its most surprising `token`, or the surprisal of the whole `line`."""
    quote: str = LINE
    """What is quoted: the `line` (a written step), or only its most surprising `token`."""
    n_folds: int = 5
    """Number of folds that the problems are split into for cross-fitting."""
    n_layers_named: int = 3
    """Layers named in a finding, from telemetry; 0 names none. Traces without telemetry name none."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(
            0 < self.false_positive_rate <= 0.5,
            "false_positive_rate",
            self.false_positive_rate,
            "a number above 0, at most 0.5",
        )
        require(self.statistic in (TOKEN, LINE), "statistic", self.statistic, "token or line")
        require(self.quote in (TOKEN, LINE), "quote", self.quote, "token or line")
        require(self.n_folds >= 2, "n_folds", self.n_folds, "at least 2")
        require(self.n_layers_named >= 0, "n_layers_named", self.n_layers_named, "at least 0")

    async def audit(self, request: AuditRequest) -> Audit:
        """Returns at most one finding per trace; traces that cannot be calibrated are missing."""
        traces = [trace for _, trace in request.items]
        missing = {
            t.id: f"{len(t.logprobs)} log-probabilities for {len(t.completion_ids)} tokens"
            for t in traces
            if len(t.logprobs) != len(t.completion_ids)
        }
        scored = {t.id: score_lines(t, self.statistic) for t in traces if t.id not in missing}
        usable = [t for t in traces if t.id in scored]
        findings: list[Finding] = []
        thresholds: dict[int, float] = {}
        for fold in range(self.n_folds):
            others = [t for t in usable if t.correct and fold_of(t.problem_id, self.n_folds) != fold]
            threshold = conformal_threshold([largest(scored[t.id]) for t in others], self.false_positive_rate)
            baseline = LayerBaseline(request.telemetry, others)
            for trace in (t for t in usable if fold_of(t.problem_id, self.n_folds) == fold):
                if math.isinf(threshold):
                    missing[trace.id] = (
                        f"{len(others)} right traces to calibrate on; false_positive_rate={self.false_positive_rate} "
                        f"needs {smallest_pool(self.false_positive_rate)}"
                    )
                    continue
                thresholds[fold] = threshold
                line = next((line for line in scored[trace.id] if line.score > threshold), None)
                if line is not None:
                    findings.append(self._finding(trace, line, threshold, baseline))
            request.tick(fold + 1, self.n_folds)
        order = {t.id: i for i, t in enumerate(traces)}
        findings.sort(key=lambda f: order[f.trace_id])
        audited = [t for t in usable if t.id not in missing]
        return Audit(
            observer="surprisal",
            findings=tuple(findings),
            audited=tuple(t.id for t in audited),
            missing=missing,
            notes=self._notes(request, audited, scored, findings, sorted(thresholds.values())),
        )

    def _finding(self, trace: Trace, line: Line, threshold: float, baseline: LayerBaseline) -> Finding:
        start, end = (line.start, line.end) if self.quote == LINE else trace.offsets[line.peak]
        a, b = trace.offsets[line.peak]
        surprisal = -trace.logprobs[line.peak]
        return make_finding(
            trace,
            trace.text[start:end],
            start=start,
            kind="surprisal",
            reason=f"{trace.text[a:b]!r} has a surprisal of {surprisal:.2f} nats; the line scores {line.score:.2f}, "
            f"correct traces stay below {threshold:.2f}",
            severity=1 - math.exp(-surprisal),
            confidence=1 - self.false_positive_rate,
            layers=baseline.suspects(trace, line.peak, self.n_layers_named),
        )

    def _notes(
        self,
        request: AuditRequest,
        audited: Sequence[Trace],
        scored: dict[str, list[Line]],
        findings: Sequence[Finding],
        thresholds: Sequence[float],
    ) -> tuple[str, ...]:
        """How the calibration turned out, measured against the verifier."""
        if not thresholds:
            return ("no threshold: too few correct traces",)
        flagged = {f.trace_id: f for f in findings}
        wrong = [t for t in audited if not t.correct]
        right = [t for t in audited if t.correct]
        hits = [t for t in wrong if t.id in flagged]
        false = [t for t in right if t.id in flagged]
        area = auroc([largest(scored[t.id]) for t in wrong], [largest(scored[t.id]) for t in right])
        notes = [
            f"threshold {thresholds[0]:.2f} to {thresholds[-1]:.2f} nats over {len(thresholds)} folds, each from "
            f"correct traces of other problems",
            f"flags {len(hits)} of {len(wrong)} incorrect traces (recall {_share(len(hits), len(wrong))}) and "
            f"{len(false)} of {len(right)} correct ones ({_share(len(false), len(right))}; the target is "
            f"{self.false_positive_rate:.0%} or less); precision {_share(len(hits), len(hits) + len(false))}",
            f"area under the ROC curve of a trace's largest score against the verifier: "
            f"{'undefined' if area is None else f'{area:.2f}'}",
        ]
        by_id = {trace.id: problem for problem, trace in request.items}
        errors = [(flagged[t.id], request.source.verify(by_id[t.id], t.text).first_error) for t in hits]
        located = [(f, e) for f, e in errors if e is not None]
        if located:
            at_error = sum(f.start < max(e.end, e.start + 1) and f.end > e.start for f, e in located)
            notes.append(
                f"of {len(located)} flagged incorrect traces with a known first wrong step, {at_error} "
                f"({_share(at_error, len(located))}) are flagged in that step"
            )
        if self.n_layers_named:
            named = sum(bool(f.layers) for f in findings)
            notes.append(f"{named} of {len(findings)} findings name layers; the traces of the others have no telemetry")
        return tuple(notes)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "undefined"
