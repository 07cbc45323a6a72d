"""The reference stage: the untouched model's word on each pair, computed once for every adapter."""

from __future__ import annotations

import numpy as np

from m3i.artifacts import PreferencePairs, ReferenceLogprobs
from m3i.interfaces import Tick, no_tick
from m3i.models.generation import completion_logprobs
from m3i.models.target import LoadedTarget


def reference_logprobs(
    loaded: LoadedTarget, pairs: PreferencePairs, batch_size: int, tick: Tick = no_tick
) -> ReferenceLogprobs:
    """Summed log-probabilities of chosen and rejected completions under the untouched model.

    These are log π_ref(y | x) in the DPO loss. Source: Rafailov et al. 2305.18290, equation 7. They depend on model and
    pair alone, so all layer selections and training seeds share them.

    Args:
        loaded: The target.
        pairs: The pairs; a completion that occurs in several is computed once.
        batch_size: Sequences of one forward pass.
        tick: Told the number of finished sequences.

    Returns:
        Two float32 arrays in the pairs' order, in nats.
    """
    rows: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    for pair in pairs.pairs:
        rows[pair.prompt_ids, pair.chosen_ids] = rows[pair.prompt_ids, pair.rejected_ids] = 0.0
    for row, logprobs in zip(
        rows, completion_logprobs(loaded, list(rows), batch_size=batch_size, tick=tick), strict=True
    ):
        rows[row] = float(logprobs.sum(dtype=np.float32))
    return ReferenceLogprobs(
        chosen_P=np.array([rows[p.prompt_ids, p.chosen_ids] for p in pairs.pairs], dtype=np.float32),
        rejected_P=np.array([rows[p.prompt_ids, p.rejected_ids] for p in pairs.pairs], dtype=np.float32),
    )
