"""Shuffled preferences: the control that separates *which side is better* from training on such pairs at all.

Half of the pairs have chosen and rejected swapped, so the labels carry no information about the
problems while texts, lengths, layers and steps stay the same. Pure: no model, no disk.
"""

from __future__ import annotations

import dataclasses
import random

from m3i.artifacts import PreferencePairs, ReferenceLogprobs
from m3i.stages.pairs import pair_lengths


def swapped_rows(n_pairs: int, seed: int) -> frozenset[int]:
    """Which of `n_pairs` pairs are swapped: n_pairs // 2 of them, another half for another seed."""
    return frozenset(random.Random(f"shuffled preferences {seed}").sample(range(n_pairs), n_pairs // 2))


def shuffle_pairs(pairs: PreferencePairs, seed: int) -> PreferencePairs:
    """The pairs with half of them swapped; `counts` says how many, as `pairs: swapped`."""
    swapped = swapped_rows(len(pairs.pairs), seed)
    rows = tuple(
        dataclasses.replace(
            pair,
            chosen_ids=pair.rejected_ids,
            rejected_ids=pair.chosen_ids,
            chosen_text=pair.rejected_text,
            rejected_text=pair.chosen_text,
        )
        if i in swapped
        else pair
        for i, pair in enumerate(pairs.pairs)
    )
    return PreferencePairs(
        pairs=rows, counts=dict(pairs.counts) | {"pairs: swapped": len(swapped)}, lengths=pair_lengths(rows)
    )


def shuffle_reference(reference: ReferenceLogprobs, seed: int) -> ReferenceLogprobs:
    """The log-probabilities of the same pairs after `shuffle_pairs` with the same seed: nothing is computed anew."""
    chosen_P, rejected_P = reference.chosen_P.copy(), reference.rejected_P.copy()
    rows = sorted(swapped_rows(len(chosen_P), seed))
    chosen_P[rows], rejected_P[rows] = reference.rejected_P[rows], reference.chosen_P[rows]
    return ReferenceLogprobs(chosen_P=chosen_P, rejected_P=rejected_P)
