"""The pairs stage: correct over incorrect completions of the same prompt. Pure: no model, no disk."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import PairOrigin, PreferencePair, PreferencePairs, Problem, ProblemSet, Trace, Traces
from m3i.component import plain
from m3i.config.settings import Corrected, Overlong
from m3i.errors import StageError
from m3i.interfaces import ProblemSource, Tick

if TYPE_CHECKING:
    from m3i.config.settings import PairSettings
    from m3i.stages.context import RunContext

LEFT_OUT = "left out: "
"""Prefix of the counters of traces and pairs that were left out."""


def run(context: RunContext, problems: ProblemSet, traces: Traces) -> PreferencePairs:
    """Returns preference pairs made from verified traces; both sides of a pair answer the same prompt."""
    settings = context.experiment.settings.pairs

    def work(folder: Path, tick: Tick) -> PreferencePairs:
        loaded = context.session.loaded
        return build_pairs(
            problems.train,
            traces.traces,
            context.experiment.problems,
            loaded.encode_completion,
            end_id=loaded.stop_ids[0],
            settings=settings,
        )

    return context.make(
        PreferencePairs,
        "pairs",
        work,
        settings=plain(settings),
        inputs={"target": context.target_id, "problems": problems.id, "traces": traces.id},
        made=lambda a: f"{len(a.pairs)} pairs",
    )


def build_pairs(
    problems: Sequence[Problem],
    traces: Sequence[Trace],
    source: ProblemSource,
    encode: Callable[[str], list[int]],
    *,
    end_id: int,
    settings: PairSettings,
) -> PreferencePairs:
    """Pairs correct with failing completions of the same prompt.

    The rejected side is a failing trace as sampled; the chosen side is a correct trace of the same problem, or the
    failing trace as corrected by the source from its first error on. Equal completions count once. All failing traces
    of a problem are used before any is used twice, in an order drawn from the seed.

    Args:
        problems: The train problems.
        traces: Their verified traces.
        source: Verifies completions and, where it can, corrects them (`Verification.corrected`).
        encode: Encodes the text of a completion without special tokens (`LoadedTarget.encode_completion`).
        end_id: The id that ends every corrected completion, the target's first stop id.
        settings: How many pairs to make, and what may stand on either side. A truncated trace on the rejected side gets
            no end-of-sequence token.

    Returns:
        The pairs with their counts and lengths.

    Raises:
        StageError: No pair could be built, or one is too long and `overlong` is `error`.
    """
    corrected = settings.corrected
    counts: Counter[str] = Counter({"problems": len(problems), "pairs: sampled": 0, "pairs: corrected": 0})
    of_problem: dict[str, list[Trace]] = {p.id: [] for p in problems}
    for trace in traces:
        of_problem[trace.problem_id].append(trace)
    pairs: list[PreferencePair] = []
    for problem in problems:
        own = of_problem[problem.id]
        counts[_outcome(own)] += 1
        rejected = _distinct((t for t in own if not t.correct), settings.truncated, "rejected", counts)
        chosen = _distinct((t for t in own if t.correct), False, "chosen", counts)
        rng = random.Random(hashlib.sha256(json.dumps([settings.seed, problem.id]).encode()).digest())
        rng.shuffle(rejected)
        rng.shuffle(chosen)
        candidates: list[PreferencePair] = []
        if corrected is not Corrected.only:
            candidates += _sampled(chosen, rejected)[: settings.per_problem]
        if corrected in (Corrected.only, Corrected.also) or (corrected is Corrected.fill and not chosen):
            candidates += _corrected(problem, rejected, source, encode, end_id, settings.per_problem, counts)
        for pair in _without_repeats(candidates):
            if _fits(pair, settings, counts):
                pairs.append(pair)
    at_most = settings.at_most
    if at_most is not None and len(pairs) > at_most:
        counts[f"{LEFT_OUT}beyond at_most"] = len(pairs) - at_most
        kept = sorted(random.Random(f"pairs at most {settings.seed}").sample(range(len(pairs)), at_most))
        pairs = [pairs[i] for i in kept]
    counts.update(f"pairs: {pair.origin.value}" for pair in pairs)
    if not pairs:
        raise StageError(
            "no preference pair could be built; raise trace.samples or trace.temperature, or allow corrected pairs "
            f"(pairs.corrected=fill). Counts: {dict(counts)}"
        )
    return PreferencePairs(pairs=tuple(pairs), counts=dict(counts), lengths=pair_lengths(pairs))


def _outcome(traces: Sequence[Trace]) -> str:
    right = sum(t.correct for t in traces)
    if not traces:
        return "problems: no trace"
    if right == len(traces):
        return "problems: all right"
    return "problems: all wrong" if right == 0 else "problems: both"


def _distinct(traces: Iterable[Trace], truncated: bool, side: str, counts: Counter[str]) -> list[Trace]:
    """Returns the traces that may stand on one side, without repeated completions."""
    kept: dict[tuple[int, ...], Trace] = {}
    for trace in traces:
        if trace.truncated and not truncated:
            counts[f"{LEFT_OUT}{side} trace is truncated"] += 1
        elif trace.completion_ids in kept:
            counts[f"{LEFT_OUT}{side} trace repeats another"] += 1
        else:
            kept[trace.completion_ids] = trace
    return list(kept.values())


def _sampled(chosen: Sequence[Trace], rejected: Sequence[Trace]) -> list[PreferencePair]:
    """Returns all combinations, ordered so that the first len(rejected) use each failing trace once."""
    return [
        _pair(right.completion_ids, right.text, wrong, PairOrigin.SAMPLED)
        for shift in range(len(chosen))
        for i, wrong in enumerate(rejected)
        for right in [chosen[(i + shift) % len(chosen)]]
    ]


def _corrected(
    problem: Problem,
    rejected: Sequence[Trace],
    source: ProblemSource,
    encode: Callable[[str], list[int]],
    end_id: int,
    limit: int,
    counts: Counter[str],
) -> list[PreferencePair]:
    pairs: list[PreferencePair] = []
    for wrong in rejected:
        if len(pairs) == limit:
            break
        text = source.verify(problem, wrong.text).corrected
        if text is None:
            counts[f"{LEFT_OUT}source has no correction"] += 1
        elif not source.verify(problem, text).correct:
            counts[f"{LEFT_OUT}correction is not right"] += 1
        else:
            pairs.append(_pair((*encode(text), end_id), text, wrong, PairOrigin.CORRECTED))
    return pairs


def _pair(chosen_ids: tuple[int, ...], chosen_text: str, rejected: Trace, origin: PairOrigin) -> PreferencePair:
    return PreferencePair(
        problem_id=rejected.problem_id,
        prompt_ids=rejected.prompt_ids,
        chosen_ids=chosen_ids,
        rejected_ids=rejected.completion_ids,
        chosen_text=chosen_text,
        rejected_text=rejected.text,
        rejected_trace_id=rejected.id,
        origin=origin,
    )


def _without_repeats(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """Drops pairs with the same ids as an earlier one: a corrected completion may equal a sampled one."""
    return list({(p.chosen_ids, p.rejected_ids): p for p in reversed(pairs)}.values())[::-1]


def _fits(pair: PreferencePair, settings: PairSettings, counts: Counter[str]) -> bool:
    length = _length(pair)
    if length <= settings.max_length:
        return True
    if settings.overlong is Overlong.error:
        raise StageError(
            f"a pair of problem {pair.problem_id} takes {length} tokens, more than "
            f"pairs.max_length={settings.max_length}; raise it, or leave out and count such pairs with "
            "pairs.overlong=leave_out"
        )
    counts[f"{LEFT_OUT}longer than max_length"] += 1
    return False


def _length(pair: PreferencePair) -> int:
    return len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))


def pair_lengths(pairs: Sequence[PreferencePair]) -> dict[str, float]:
    """Returns mean and maximum lengths, in tokens, of prompt, chosen, rejected and whole pair."""
    tokens = {
        "prompt": [len(p.prompt_ids) for p in pairs],
        "chosen": [len(p.chosen_ids) for p in pairs],
        "rejected": [len(p.rejected_ids) for p in pairs],
        "pair": [_length(p) for p in pairs],
    }
    means = {f"{name}_mean": sum(values) / len(values) for name, values in tokens.items()}
    return means | {f"{name}_max": float(max(values)) for name, values in tokens.items()}
