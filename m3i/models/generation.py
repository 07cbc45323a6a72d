"""Samples completions from a loaded target and computes their character spans and log-probabilities.

Each token is drawn from one uniform number by inverting the cumulative distribution. The numbers come from a separate
generator for each (seed, problem, sample), so a completion depends on its batch only through rounding.

Letters: B rows of a batch, T positions, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from m3i.artifacts import Problem
from m3i.interfaces import Tick, no_tick
from m3i.models.batching import pad_right
from m3i.models.target import LoadedTarget

if TYPE_CHECKING:
    import torch

COMPACT_BELOW = 0.75
"""Finished rows are dropped from a batch once live rows make up at most this share of it."""


@dataclass
class Completion:
    """One completion being generated."""

    problem: Problem
    sample: int
    prompt_ids: list[int]
    uniforms: np.ndarray
    """One number in [0, 1) per token."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    done: bool = False


def sample_noise(seed: int, problem_id: str, sample: int, count: int) -> np.ndarray:
    """Returns `count` uniform numbers in [0, 1), fixed by seed, problem and sample; a larger `count` only appends."""
    digest = hashlib.sha256(json.dumps([seed, problem_id, sample]).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big"))).random(count)


def context_length(loaded: LoadedTarget) -> float:
    """Returns the maximum tokens in the model's context; infinite if its configuration names no limit."""
    return float(loaded.info.config.get("max_position_embeddings") or "inf")


def generate(loaded: LoadedTarget, rows: list[Completion], temperature: float, top_p: float) -> Iterator[int]:
    """Extends the rows until each is done; after each token, yields how many rows it finished."""
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
    """Draws one token per row: the inverse of the cumulative distribution at a uniform number.

    Args:
        logits_BV: Logits, float64.
        uniforms_B: Numbers in [0, 1).
        temperature: Divides the logits; 0 takes the largest.
        top_p: Keeps the smallest set of most likely tokens with at least this probability.

    Returns:
        Token ids, shape (B,).
    """
    import torch

    if temperature == 0:
        return logits_BV.argmax(-1)
    probs_BV = (logits_BV / temperature).softmax(-1)
    if top_p < 1:
        sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
        before_BV = sorted_BV.cumsum(-1) - sorted_BV  # total probability of all more likely tokens
        probs_BV = probs_BV * torch.zeros_like(probs_BV).scatter(1, order_BV, (before_BV < top_p).to(probs_BV.dtype))
    cumulative_BV = probs_BV.cumsum(-1)
    threshold_B1 = uniforms_B[:, None] * cumulative_BV[:, -1:]
    # right=True finds the first token whose cumulative probability exceeds the threshold; its probability is above 0
    drawn_B = torch.searchsorted(cumulative_BV, threshold_B1, right=True)[:, 0]
    last_B = logits_BV.shape[-1] - 1 - probs_BV.flip(-1).gt(0).to(torch.int64).argmax(-1)
    return torch.minimum(drawn_B, last_B)  # threshold × total may round up to the total itself


def character_offsets(loaded: LoadedTarget, ids: Sequence[int], text: str) -> tuple[tuple[int, int], ...]:
    """Returns the half-open span of characters in `text` that each token covers.

    A multi-byte character may be spread over several tokens; each of them then covers the whole character. Special
    tokens have an empty span. Works for any tokenizer that decodes a prefix of the ids to a prefix of the text, except
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
    """Returns the natural log-probability of each completion token at temperature 1, with one forward pass per batch.

    Args:
        loaded: The target.
        rows: (prompt ids, completion ids), neither empty.
        batch_size: Rows per forward pass.
        tick: Called with the number of finished rows and the total.

    Returns:
        One float32 array per row, as long as its completion.
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
