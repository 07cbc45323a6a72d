"""The contrast stage: findings as next-token questions between the wrong token of a trace and the correct one.

A contrast keeps the trace's own token ids up to the fork, so that the model sees exactly the context in which it erred.
The correct text comes from one of two sources, in this order:

1. A correction: the observer's own (`Finding.correction`), else the verifier's correction of the first error where that
   overlaps the finding.
2. Without either (a problem source without steps): the correct sample of the same prompt that shares the longest prefix
   of tokens with the trace; the contrast is at the first token where they part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import Audit, Contrast, Contrasts, Finding, Problem, ProblemSet, Trace, Traces, Verification
from m3i.audits.agreement import measure_agreement
from m3i.interfaces import ProblemSource, Tick

if TYPE_CHECKING:
    from m3i.stages.context import RunContext

Encode = Callable[[str], list[int]]
"""Encodes the text of a completion as token ids, without special tokens."""


def run(context: RunContext, problems: ProblemSet, traces: Traces, audits: Mapping[str, Audit]) -> Contrasts:
    """Turns findings into next-token questions: the wrong and the correct token in one context."""

    def work(folder: Path, tick: Tick) -> Contrasts:
        return build_contrasts(
            problems=problems.train,
            traces=traces.traces,
            audits=audits,
            source=context.experiment.problems,
            encode=context.session.loaded.encode_completion,
            n_layers=context.session.info.n_layers,
        )

    return context.make(
        Contrasts,
        "contrast",
        work,
        inputs={
            "target": context.target_id,
            "problems": problems.id,
            "traces": traces.id,
            **{f"audit {a}": audit.id for a, audit in audits.items()},
        },
        made=lambda a: f"{len(a.contrasts)} contrasts, {sum(a.left_out.values())} findings left out",
    )


class NoContrast(Exception):
    """Raised for a finding that gives no contrast; the message is the reason under which it is counted."""


def build_contrasts(
    problems: Sequence[Problem],
    traces: Sequence[Trace],
    audits: Mapping[str, Audit],
    source: ProblemSource,
    encode: Encode,
    *,
    n_layers: int,
    seed: int = 0,
) -> Contrasts:
    """Returns one contrast per (observer, trace) with findings, and how far the observers agree.

    Args:
        problems: The problems of the traces.
        traces: All traces, correct ones included: failing traces are contrasted with them.
        audits: Observer's alias → its audit.
        source: Problem source; its verifier knows the first error of a completion.
        encode: Tokenizer of the target, without special tokens.
        n_layers: Number of layers of the target, for the probability that observers name the same ones by chance.
        seed: Seed of the permutations behind the agreement's p values.

    Returns:
        The artifact, without id and parents. If an observer has several findings in a trace, the earliest in the text
        that gives a contrast is used. `left_out` counts traces as `observer: reason`, with the reason of the earliest
        finding.
    """
    builder = _Builder(problems, traces, source, encode)
    contrasts: list[Contrast] = []
    left_out: Counter[str] = Counter()
    for observer, audit in audits.items():
        findings: dict[str, list[Finding]] = {}
        for finding in audit.findings:
            findings.setdefault(finding.trace_id, []).append(finding)
        for trace_id, in_trace in findings.items():
            reasons = []
            for finding in sorted(in_trace, key=lambda f: (f.start, f.end)):
                try:
                    contrasts.append(builder.contrast(observer, builder.traces[trace_id], finding))
                except NoContrast as error:
                    reasons.append(str(error))
                else:
                    break
            else:
                left_out[f"{observer}: {reasons[0]}"] += 1
    return Contrasts(
        contrasts=tuple(contrasts),
        left_out=dict(left_out),
        agreement=measure_agreement(audits, traces, n_layers=n_layers, seed=seed),
    )


class _Builder:
    """What all contrasts of one experiment share: look-ups, verifications and correct samples."""

    def __init__(
        self, problems: Sequence[Problem], traces: Sequence[Trace], source: ProblemSource, encode: Encode
    ) -> None:
        self.problems = {p.id: p for p in problems}
        self.traces = {t.id: t for t in traces}
        self.source = source
        self.encode = encode
        self.verifications: dict[str, Verification] = {}
        self.right: dict[str, list[Trace]] = {}
        for trace in traces:
            if trace.correct:
                self.right.setdefault(trace.problem_id, []).append(trace)

    def contrast(self, observer: str, trace: Trace, finding: Finding) -> Contrast:
        right_text = self._right_text(trace, finding)
        if right_text is not None:
            position, wrong_id, right_id = fork(trace, right_text, self.encode)
            origin = "correction"
        else:
            position, wrong_id, right_id = part(trace, self.right.get(trace.problem_id, []))
            origin = "divergence"
        return Contrast(
            trace_id=trace.id,
            problem_id=trace.problem_id,
            observer=observer,
            context_ids=(*trace.prompt_ids, *trace.completion_ids[:position]),
            wrong_id=wrong_id,
            right_id=right_id,
            position=position,
            origin=origin,
        )

    def _right_text(self, trace: Trace, finding: Finding) -> str | None:
        """Returns the trace's text with the finding corrected; None where only a correct sample can show the error."""
        if finding.correction is not None:
            return trace.text[: finding.start] + finding.correction + trace.text[finding.end :]
        if trace.correct:
            raise NoContrast("the trace is right by the verifier")
        if trace.id not in self.verifications:
            self.verifications[trace.id] = self.source.verify(self.problems[trace.problem_id], trace.text)
        verification = self.verifications[trace.id]
        error = verification.first_error
        if error is None:
            return None
        # An error may be an empty span (a line that is missing): touching it counts as overlap.
        if finding.start > error.end or finding.end < error.start:
            raise NoContrast("the finding does not overlap the first wrong step")
        if verification.corrected is not None:
            return verification.corrected
        return trace.text[: error.start] + error.corrected + trace.text[error.end :]


def fork(trace: Trace, right_text: str, encode: Encode) -> tuple[int, int, int]:
    """Returns where a trace's tokens leave the correct text: (index in the completion, wrong id, correct id).

    The trace's ids are never re-tokenised. Where they are the tokenizer's own, the fork is the first index at which the
    ids of the trace and of the correct text differ; this covers merges across the boundary (wrong `1|2`, correct `13`
    as one token). Where the model tokenised an earlier word in an unusual way, that index would be an artefact of the
    tokenisation, so the correct text is tokenised from the start of the token in which the *characters* first differ.

    Raises:
        NoContrast: The two texts are equal, the trace ends before they differ, or their tokenisations cannot be
            aligned.
    """
    if right_text == trace.text:
        raise NoContrast("the correction equals the text")
    same = _common(trace.text, right_text)
    ends_itself = not trace.truncated and trace.offsets[-1][0] == trace.offsets[-1][1]
    right_ids = list(encode(right_text))
    if ends_itself:
        right_ids.append(trace.completion_ids[-1])
    at = next((i for i, (a, b) in enumerate(trace.offsets) if a < b and b > same), None)
    if at is None:
        # The trace is a prefix of the correct text: the wrong token is the end of the sequence.
        if not ends_itself:
            raise NoContrast("the trace was cut before it differs from the correction")
        at = len(trace.completion_ids) - 1
    index = _common(trace.completion_ids, right_ids)
    own_ids = list(encode(trace.text))
    spelled_as_tokenizer = _common(trace.completion_ids, own_ids) >= min(index + 1, len(own_ids))
    if index < min(len(right_ids), len(trace.completion_ids)) and spelled_as_tokenizer:
        return index, trace.completion_ids[index], right_ids[index]
    start = trace.offsets[at][0] if trace.offsets[at][0] < trace.offsets[at][1] else len(trace.text)
    wrong_rest, right_rest = encode(trace.text[start:]), encode(right_text[start:])
    if at < len(trace.completion_ids) - int(ends_itself) and (
        not wrong_rest or wrong_rest[0] != trace.completion_ids[at]
    ):
        raise NoContrast("the tokenisations of trace and correction cannot be aligned")
    right = right_rest[0] if right_rest else (trace.completion_ids[-1] if ends_itself else None)
    if right is None:
        raise NoContrast("the correction ends where the trace goes on, and the trace shows no end of sequence")
    if right == trace.completion_ids[at]:
        raise NoContrast("the tokenisations of trace and correction cannot be aligned")
    return at, trace.completion_ids[at], right


def part(trace: Trace, right: Sequence[Trace]) -> tuple[int, int, int]:
    """Returns where a trace parts from the correct sample sharing the longest prefix: (index, wrong id, correct id).

    Among samples that share equally many tokens, the most common correct id is taken, and the first sample's on a tie.

    Raises:
        NoContrast: There is no correct sample of the prompt, or none that differs at a token.
    """
    if not right:
        raise NoContrast("no right sample of the same prompt")
    shared = [(_common(trace.completion_ids, t.completion_ids), t) for t in right if t.prompt_ids == trace.prompt_ids]
    forks = [(n, t.completion_ids[n]) for n, t in shared if n < len(trace.completion_ids) and n < len(t.completion_ids)]
    if not forks:
        raise NoContrast("no right sample that parts from the trace at a token")
    longest = max(n for n, _ in forks)
    right_id = Counter(r for n, r in forks if n == longest).most_common(1)[0][0]
    return longest, trace.completion_ids[longest], right_id


def _common(a: Sequence[object], b: Sequence[object]) -> int:
    """Returns the length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
