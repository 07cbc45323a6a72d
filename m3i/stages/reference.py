"""The reference stage: the base model's log-probabilities of each pair, computed once for all adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3i.artifacts import PreferencePairs, ReferenceLogprobs
from m3i.component import plain
from m3i.interfaces import Tick, no_tick
from m3i.models.generation import completion_logprobs
from m3i.models.target import LoadedTarget
from m3i.stages.libraries import TORCH

if TYPE_CHECKING:
    from m3i.stages.context import RunContext


def run(context: RunContext, pairs: PreferencePairs) -> ReferenceLogprobs:
    """Returns the base model's log-probabilities of every pair; all adapters trained on these pairs share them."""
    settings = context.experiment.settings.reference

    def work(folder: Path, tick: Tick) -> ReferenceLogprobs:
        return reference_logprobs(context.session.loaded, pairs, settings.batch_size, tick=tick)

    return context.make(
        ReferenceLogprobs,
        "reference",
        work,
        settings=plain(settings),
        inputs={"target": context.target_id, "pairs": pairs.id},
        libraries=TORCH,
        made=lambda a: f"{2 * len(a.chosen_P)} completions",
    )


def reference_logprobs(
    loaded: LoadedTarget, pairs: PreferencePairs, batch_size: int, tick: Tick = no_tick
) -> ReferenceLogprobs:
    """Returns the summed log-probabilities of chosen and rejected completions under the base model.

    These are log π_ref(y | x) in the DPO loss. Source: Rafailov et al. 2305.18290, equation 7. They depend only on the
    model and the pair, so all layer selections and training seeds share them.

    Args:
        loaded: The target.
        pairs: The pairs; a completion that occurs in several is computed once.
        batch_size: Sequences per forward pass.
        tick: Progress, in sequences.

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
