"""The trace stage: sampled completions of the train problems, or the user's own traces of the target."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3i.artifacts import Problem, ProblemSet, Trace, Traces
from m3i.component import plain
from m3i.config.settings import TraceSettings
from m3i.errors import ConfigError, InputError
from m3i.interfaces import ProblemSource, Tick, no_tick
from m3i.models.generation import (
    Completion,
    character_offsets,
    completion_logprobs,
    context_length,
    generate,
    sample_noise,
)
from m3i.models.target import LoadedTarget
from m3i.stages.libraries import TORCH
from m3i.store.files import file_hash, read_json_lines

if TYPE_CHECKING:
    from m3i.stages.context import RunContext


def run(context: RunContext, problems: ProblemSet) -> Traces:
    """Returns sampled completions of the train problems, or the user's own traces of the target."""
    source, settings = context.experiment.problems, context.experiment.settings.trace

    def work(folder: Path, tick: Tick) -> Traces:
        context.check_room()
        loaded = context.session.loaded
        if settings.file is not None:
            return read_traces(Path(settings.file), loaded, problems.train, source)
        return sample_traces(loaded, problems.train, source, settings, tick=tick)

    return context.make(
        Traces,
        "trace",
        work,
        settings=plain(settings) if settings.file is None else {"file_sha256": file_hash(Path(settings.file))},
        inputs={"target": context.target_id, "problems": problems.id},
        libraries=TORCH,
        made=lambda a: f"{len(a.traces)} traces, {sum(t.correct for t in a.traces)} correct",
    )


def sample_traces(
    loaded: LoadedTarget,
    problems: Sequence[Problem],
    source: ProblemSource,
    settings: TraceSettings,
    tick: Tick = no_tick,
) -> Traces:
    """Samples several completions of every problem and verifies them.

    Args:
        loaded: The target.
        problems: Problems to solve; the returned traces are in their order.
        source: Their source; its `verify` says which traces are correct.
        settings: How to sample. The seed, with the problem's id and the sample's number, fixes the noise;
            `batch_size` changes results only by rounding.
        tick: Progress, in traces.

    Returns:
        The traces, problem by problem and sample by sample, with log-probabilities at temperature 1.

    Raises:
        ConfigError: A prompt and `settings.max_new_tokens` together do not fit into the model's context.
    """
    started = time.monotonic()
    rows = []
    for problem in problems:
        prompt_ids = loaded.encode_prompt(problem.prompt)
        _check_context(loaded, problem, len(prompt_ids) + settings.max_new_tokens)
        for sample in range(settings.samples):
            uniforms = sample_noise(settings.seed, problem.id, sample, settings.max_new_tokens)
            rows.append(Completion(problem=problem, sample=sample, prompt_ids=prompt_ids, uniforms=uniforms))
    # Rows of similar length need little padding; the order does not change the noise.
    by_length = sorted(rows, key=lambda row: len(row.prompt_ids))
    finished = 0
    for start in range(0, len(by_length), settings.batch_size):
        batch = by_length[start : start + settings.batch_size]
        for newly in generate(loaded, batch, settings.temperature, settings.top_p):
            finished += newly
            tick(finished, len(rows))
    traces = tuple(_trace(loaded, source, row) for row in rows)
    return Traces(traces=traces, generation_time_s=time.monotonic() - started)


def _check_context(loaded: LoadedTarget, problem: Problem, length: int) -> None:
    limit = context_length(loaded)
    if length > limit:
        raise ConfigError(
            f"trace.max_new_tokens is too large: problem {problem.id} would take {length} tokens with its prompt, but "
            f"{loaded.info.name} has a context of {limit:.0f}; lower it or leave out long prompts"
        )


def _trace(loaded: LoadedTarget, source: ProblemSource, row: Completion) -> Trace:
    text = loaded.decode(row.ids)
    verification = source.verify(row.problem, text)
    return Trace(
        id=f"{row.problem.id}.{row.sample}",
        problem_id=row.problem.id,
        sample=row.sample,
        prompt_ids=tuple(row.prompt_ids),
        completion_ids=tuple(row.ids),
        text=text,
        offsets=character_offsets(loaded, row.ids, text),
        logprobs=tuple(row.logprobs),
        correct=verification.correct,
        answer=verification.answer,
        truncated=not row.done,
    )


def read_traces(
    path: Path,
    loaded: LoadedTarget,
    problems: Sequence[Problem],
    source: ProblemSource,
    *,
    batch_size: int = 32,
    tick: Tick = no_tick,
) -> Traces:
    """Reads the user's own traces from a JSONL file, verifies them and computes the model's log-probabilities.

    Each line is an object with `completion` (text) and either `prompt` (as the source states it; white space around it
    does not matter) or `problem_id`; `"truncated": true` says that the completion was cut off, otherwise the
    end-of-sequence token is added. Blank lines are skipped.

    Args:
        path: The file.
        loaded: The target: it encodes the completions and computes their log-probabilities.
        problems: The drawn train problems; a trace of any other prompt is an error.
        source: Their source, which verifies.
        batch_size: Traces per forward pass.
        tick: Progress, in traces.

    Raises:
        InputError: A line is not JSON, lacks a field or has one of the wrong type, has a prompt or id that no train
            problem has, or has text that the tokenizer cannot represent. The message names file and line.
    """
    by_key = {f"id:{p.id}": p for p in problems} | {f"prompt:{p.prompt.strip()}": p for p in problems}
    seen: Counter[str] = Counter()
    rows = []
    for where, record in _records(path):
        problem = _match(where, record, by_key)
        row = Completion(problem, seen[problem.id], loaded.encode_prompt(problem.prompt), np.empty(0))
        row.ids, row.done = _encode_trace(where, loaded, record)
        if len(row.prompt_ids) + len(row.ids) > context_length(loaded):
            raise InputError(
                f"{where}: prompt and completion take {len(row.prompt_ids) + len(row.ids)} tokens, but "
                f"{loaded.info.name} has a context of {context_length(loaded):.0f}; shorten or remove the trace"
            )
        seen[problem.id] += 1
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: no traces; give one JSON object per line with 'prompt' and 'completion'")
    pairs = [(row.prompt_ids, row.ids) for row in rows]
    for row, logprobs in zip(rows, completion_logprobs(loaded, pairs, batch_size=batch_size, tick=tick), strict=True):
        row.logprobs = [float(value) for value in logprobs]
    return Traces(traces=tuple(_trace(loaded, source, row) for row in rows))


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, record in read_json_lines(path):
        where = f"{path}, line {number}"
        if not isinstance(record, dict):
            raise InputError(
                f"{where}: expected an object with 'prompt' and 'completion', got {json.dumps(record)[:40]}"
            )
        yield where, record


def _match(where: str, record: dict[str, Any], by_key: dict[str, Problem]) -> Problem:
    if ("prompt" in record) == ("problem_id" in record):
        raise InputError(f"{where}: give either 'prompt' or 'problem_id', got the fields {sorted(record)}")
    name = "prompt" if "prompt" in record else "problem_id"
    value = record[name]
    if not isinstance(value, str):
        raise InputError(f"{where}: {name!r} must be text, got {json.dumps(value)[:40]}")
    key = f"prompt:{value.strip()}" if name == "prompt" else f"id:{value}"
    if key not in by_key:
        raise InputError(
            f"{where}: no drawn train problem has the {name} {value[:60]!r}; every trace must answer a drawn problem"
        )
    return by_key[key]


def _encode_trace(where: str, loaded: LoadedTarget, record: dict[str, Any]) -> tuple[list[int], bool]:
    completion, truncated = record.get("completion"), record.get("truncated", False)
    if not isinstance(completion, str) or not completion:
        raise InputError(f"{where}: 'completion' must be text of at least one character, got {completion!r}")
    if not isinstance(truncated, bool):
        raise InputError(f"{where}: 'truncated' must be true or false, got {json.dumps(truncated)[:40]}")
    ids = loaded.encode_completion(completion)
    back = loaded.decode(ids)
    if back != completion:
        at = next((i for i, (a, b) in enumerate(zip(completion, back, strict=False)) if a != b), len(back))
        raise InputError(
            f"{where}: the tokenizer of {loaded.info.name} cannot represent the completion from character {at} on "
            f"({completion[at : at + 12]!r})"
        )
    return (ids, False) if truncated else ([*ids, loaded.stop_ids[0]], True)
