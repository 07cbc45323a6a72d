"""The trace stage: the target's sampled completions, or the user's, with ids, character spans and log-probabilities.

Sampling draws one uniform number a token by the inverse of the cumulative distribution, from a generator of its own
for each (seed, problem, sample). So a trace depends on the batch it was generated in only through rounding.

Letters: B rows of a batch, T positions, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3i.artifacts import Problem, Trace, Traces
from m3i.errors import ConfigError, InputError
from m3i.interfaces import ProblemSource, Tick, no_tick
from m3i.models.batching import pad_right
from m3i.models.target import LoadedTarget
from m3i.store.json_lines import read_json_lines

if TYPE_CHECKING:
    import torch

COMPACT_BELOW = 0.75
"""Finished rows are dropped from a batch once the live ones are at most this share of it."""


@dataclass
class _Row:
    """One completion in the making."""

    problem: Problem
    sample: int
    prompt_ids: list[int]
    uniforms: np.ndarray
    """One number in [0, 1) a token."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    done: bool = False


def sample_traces(
    loaded: LoadedTarget,
    problems: Sequence[Problem],
    source: ProblemSource,
    *,
    samples: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    tick: Tick = no_tick,
) -> Traces:
    """Several sampled completions of every problem, verified.

    Args:
        loaded: The target.
        problems: Problems to reason about, in the order of the traces returned.
        source: Their source; its `verify` says which traces are right.
        samples: Completions of each problem, ≥ 1.
        temperature: Divides the logits, ≥ 0; 0 takes the likeliest token.
        top_p: Share of probability kept, in (0, 1]; 1 keeps all. Source: Holtzman et al. 1904.09751, section 3.1.
        max_new_tokens: Length limit in tokens, end-of-sequence included; a trace that meets it is `truncated`.
        batch_size: Completions generated at once; changes results by rounding only.
        seed: Seed of the sampling; with the problem's id and the sample's number it fixes the noise.
        tick: Told the number of finished traces.

    Returns:
        The traces, problem by problem and sample by sample, with log-probabilities at temperature 1.

    Raises:
        ConfigError: If a prompt and `max_new_tokens` together do not fit the model's context.
    """
    started = time.monotonic()
    rows = []
    for problem in problems:
        prompt_ids = loaded.encode_prompt(problem.prompt)
        _check_context(loaded, problem, len(prompt_ids) + max_new_tokens)
        for sample in range(samples):
            uniforms = sample_noise(seed, problem.id, sample, max_new_tokens)
            rows.append(_Row(problem=problem, sample=sample, prompt_ids=prompt_ids, uniforms=uniforms))
    # Rows of one length waste no padding; the order does not change the noise.
    by_length = sorted(rows, key=lambda row: len(row.prompt_ids))
    finished = 0
    for start in range(0, len(by_length), batch_size):
        for newly in _generate(loaded, by_length[start : start + batch_size], temperature, top_p):
            finished += newly
            tick(finished, len(rows))
    traces = tuple(_trace(loaded, source, row) for row in rows)
    return Traces(traces=traces, generation_time_s=time.monotonic() - started)


def sample_noise(seed: int, problem_id: str, sample: int, count: int) -> np.ndarray:
    """`count` uniform numbers in [0, 1) that depend on the arguments alone; a longer draw begins with a shorter one."""
    digest = hashlib.sha256(json.dumps([seed, problem_id, sample]).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big"))).random(count)


def _check_context(loaded: LoadedTarget, problem: Problem, length: int) -> None:
    limit = _context(loaded)
    if length > limit:
        raise ConfigError(
            f"trace.max_new_tokens is too large: problem {problem.id} would take {length} tokens with its prompt, and "
            f"{loaded.info.name} has a context of {limit:.0f}; lower it or leave out long prompts"
        )


def _context(loaded: LoadedTarget) -> float:
    return float(loaded.info.config.get("max_position_embeddings") or "inf")


def _generate(loaded: LoadedTarget, rows: list[_Row], temperature: float, top_p: float) -> Iterator[int]:
    """Extends the rows until each is done; yields how many newly are, after each token."""
    import torch

    device = loaded.model.device
    width = max(len(row.prompt_ids) for row in rows)
    pad = [width - len(row.prompt_ids) for row in rows]
    ids_BT = torch.tensor([[0] * p + row.prompt_ids for p, row in zip(pad, rows, strict=True)], device=device)
    mask_BT = torch.tensor([[0] * p + [1] * (width - p) for p in pad], device=device)
    positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    cache = None
    live = list(rows)
    with torch.inference_mode():
        for i in range(len(rows[0].uniforms)):
            output = loaded.model(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                position_ids=positions_BT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logits_BV = output.logits[:, -1].to("cpu", torch.float64)
            uniforms_B = torch.tensor([row.uniforms[i] for row in live], dtype=torch.float64)
            drawn_B = draw_tokens(logits_BV, uniforms_B, temperature, top_p)
            logprobs_B = logits_BV.log_softmax(-1).gather(1, drawn_B[:, None])[:, 0]
            newly = 0
            for row, token, logprob in zip(live, drawn_B.tolist(), logprobs_B.tolist(), strict=True):
                if row.done:
                    continue
                row.ids.append(token)
                row.logprobs.append(logprob)
                row.done = token in loaded.stop_ids
                newly += row.done or len(row.ids) == len(row.uniforms)
            yield newly
            kept = [b for b, row in enumerate(live) if not row.done]
            if not kept:
                return
            ids_BT = drawn_B.to(device)[:, None]
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(live), 1)], dim=1)
            positions_BT = positions_BT[:, -1:] + 1
            if len(kept) <= COMPACT_BELOW * len(live):
                kept_B = torch.tensor(kept, device=device)
                cache.batch_select_indices(kept_B)
                ids_BT, mask_BT, positions_BT = ids_BT[kept_B], mask_BT[kept_B], positions_BT[kept_B]
                live = [live[b] for b in kept]


def draw_tokens(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """One token id a row: the inverse of the cumulative distribution at a uniform number.

    Args:
        logits_BV: Logits, float64.
        uniforms_B: Numbers in [0, 1).
        temperature: Divides the logits; 0 takes the largest.
        top_p: The smallest set of likeliest tokens with at least this probability is kept.

    Returns:
        Token ids, shape (B,).
    """
    import torch

    if temperature == 0:
        return logits_BV.argmax(-1)
    probs_BV = (logits_BV / temperature).softmax(-1)
    if top_p < 1:
        sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
        before_BV = sorted_BV.cumsum(-1) - sorted_BV  # probability of everything likelier
        probs_BV = probs_BV * torch.zeros_like(probs_BV).scatter(1, order_BV, (before_BV < top_p).to(probs_BV.dtype))
    cumulative_BV = probs_BV.cumsum(-1)
    threshold_B1 = uniforms_B[:, None] * cumulative_BV[:, -1:]
    # right=True: the first token whose cumulative probability exceeds the threshold; it has a probability above 0
    drawn_B = torch.searchsorted(cumulative_BV, threshold_B1, right=True)[:, 0]
    last_B = logits_BV.shape[-1] - 1 - probs_BV.flip(-1).gt(0).to(torch.int64).argmax(-1)
    return torch.minimum(drawn_B, last_B)  # threshold × total may round up to the total itself


def _trace(loaded: LoadedTarget, source: ProblemSource, row: _Row) -> Trace:
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


def character_offsets(loaded: LoadedTarget, ids: Sequence[int], text: str) -> tuple[tuple[int, int], ...]:
    """The half-open span of characters in `text` that each token covers.

    A character of several bytes may be spread over several tokens: each of them covers the whole character. Special
    tokens have an empty span. Works for any tokenizer whose decoding of a prefix of ids is a prefix of the text, but
    for an unfinished character at its end (byte-level BPE, SentencePiece with byte fallback).
    """
    special = set(loaded.tokenizer.all_special_ids)
    offsets = []
    whole = 0  # characters of `text` that are complete before this token
    for i, token in enumerate(ids):
        if token in special:
            offsets.append((whole, whole))
            continue
        decoded = loaded.decode(list(ids[: i + 1]))
        now = whole
        while now < min(len(decoded), len(text)) and decoded[now] == text[now]:
            now += 1
        unfinished = len(decoded) > now and now < len(text)
        offsets.append((whole, now + 1 if unfinished else now))
        whole = now
    return tuple(offsets)


def completion_logprobs(
    loaded: LoadedTarget,
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    batch_size: int,
    tick: Tick = no_tick,
) -> list[np.ndarray]:
    """Natural log-probability of each completion token at temperature 1, from one forward pass a batch.

    Args:
        loaded: The target.
        rows: (prompt ids, completion ids), neither empty.
        batch_size: Rows of one pass.
        tick: Told the number of finished rows.

    Returns:
        One float32 array a row, as long as its completion.
    """
    import torch

    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    results: list[np.ndarray] = [np.empty(0, dtype=np.float32)] * len(rows)
    device = loaded.model.device
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        ids_BT, real_BT = pad_right([[*rows[i][0], *rows[i][1]] for i in chosen], device)
        first = min(len(rows[i][0]) for i in chosen) - 1  # earliest position whose next token counts
        with torch.inference_mode():
            logits_BTV = loaded.model(
                input_ids=ids_BT,
                attention_mask=real_BT.long(),
                use_cache=False,
                logits_to_keep=torch.arange(first, ids_BT.shape[1] - 1, device=device),
            ).logits.float()
            next_BT = ids_BT[:, first + 1 :]
            logprobs_BT = logits_BTV.gather(-1, next_BT[..., None])[..., 0] - logits_BTV.logsumexp(-1)
        for i, values_T in zip(chosen, logprobs_BT.cpu().numpy(), strict=True):
            begin = len(rows[i][0]) - 1 - first
            results[i] = values_T[begin : begin + len(rows[i][1])].copy()
        tick(min(start + batch_size, len(rows)), len(rows))
    return results


def read_traces(
    path: Path,
    loaded: LoadedTarget,
    problems: Sequence[Problem],
    source: ProblemSource,
    *,
    batch_size: int = 32,
    tick: Tick = no_tick,
) -> Traces:
    """The user's own traces from a JSONL file, verified and with the model's log-probabilities.

    Each line is an object with `completion` (text) and either `prompt` (as the source states it; white space around it
    does not matter) or `problem_id`; `"truncated": true` says that the completion did not end by itself, otherwise the
    end-of-sequence token is added. Blank lines are skipped.

    Args:
        path: The file.
        loaded: The target: it encodes the completions and gives their log-probabilities.
        problems: The drawn train problems; a trace of any other prompt is an error.
        source: Their source, which verifies.
        batch_size: Traces of one forward pass.
        tick: Told the number of finished traces.

    Raises:
        InputError: Naming file and line: not JSON, fields missing or of the wrong type, a prompt or id that no train
            problem has, or text that the tokenizer cannot represent.
    """
    by_key = {f"id:{p.id}": p for p in problems} | {f"prompt:{p.prompt.strip()}": p for p in problems}
    seen: Counter[str] = Counter()
    rows = []
    for where, record in _records(path):
        problem = _match(where, record, by_key)
        row = _Row(problem, seen[problem.id], loaded.encode_prompt(problem.prompt), np.empty(0))
        row.ids, row.done = _encode_trace(where, loaded, record)
        if len(row.prompt_ids) + len(row.ids) > _context(loaded):
            raise InputError(
                f"{where}: prompt and completion take {len(row.prompt_ids) + len(row.ids)} tokens, and "
                f"{loaded.info.name} has a context of {_context(loaded):.0f}; shorten or remove the trace"
            )
        seen[problem.id] += 1
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: no traces; give one JSON object a line with 'prompt' and 'completion'")
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
        raise InputError(f"{where}: no drawn train problem has the {name} {value[:60]!r}; traces must answer those")
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
