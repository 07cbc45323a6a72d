"""Shuffled preferences: the control that separates learning *which side is better* from training on such pairs at all.

Half of the pairs have chosen and rejected swapped, so the labels carry no information about the
problems while texts, lengths, layers and steps stay the same. Pure: no model, no disk.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from m3i.artifacts import Artifact, PreferencePairs, ReferenceLogprobs
from m3i.config.arms import ArmKind
from m3i.stages.pairs import pair_lengths

if TYPE_CHECKING:
    from m3i.stages.context import RunContext

A = TypeVar("A", bound=Artifact)


def run(
    context: RunContext, pairs: PreferencePairs, reference: ReferenceLogprobs
) -> tuple[PreferencePairs, ReferenceLogprobs]:
    """Swaps half of the pairs in the shuffled arm, another half per training seed; other arms keep the pairs."""
    if context.experiment.arm.kind is not ArmKind.SHUFFLED:
        return pairs, reference
    seed = context.experiment.settings.seed

    def swapped(name: str, of: A, swap: Callable[[A, int], A], made: Callable[[A], str]) -> A:
        return context.make(
            type(of),
            "shuffle",
            lambda folder, tick: swap(of, seed),
            label=name,
            settings={"seed": seed, "of": name},
            inputs={name: of.id},
            made=made,
        )

    def say_swapped(artifact: PreferencePairs) -> str:
        return f"{artifact.counts.get('pairs: swapped', 0)} of {len(artifact.pairs)} pairs swapped"

    return (
        swapped("pairs", pairs, shuffle_pairs, say_swapped),
        swapped("reference", reference, shuffle_reference, lambda a: f"{2 * len(a.chosen_P)} completions"),
    )


def swapped_rows(n_pairs: int, seed: int) -> frozenset[int]:
    """Returns the indices of the swapped pairs: n_pairs // 2 of them, another half for another seed."""
    return frozenset(random.Random(f"shuffled preferences {seed}").sample(range(n_pairs), n_pairs // 2))


def shuffle_pairs(pairs: PreferencePairs, seed: int) -> PreferencePairs:
    """Returns the pairs with half of them swapped; `counts` has their number as `pairs: swapped`."""
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
    """Returns the log-probabilities of the pairs as `shuffle_pairs` swaps them at this seed; none is recomputed."""
    chosen_P, rejected_P = reference.chosen_P.copy(), reference.rejected_P.copy()
    rows = sorted(swapped_rows(len(chosen_P), seed))
    chosen_P[rows], rejected_P[rows] = reference.rejected_P[rows], reference.chosen_P[rows]
    return ReferenceLogprobs(chosen_P=chosen_P, rejected_P=rejected_P)
