"""Random layer sets without repetition: a population of sets in a random order fixed by a seed.

A population holds every set that takes a given number of layers from each stratum, such as one dense and two routed
layers. Draws 0, 1, 2, ... visit each set once, so R draws are R distinct controls.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Interchangeable layers, and how many of them a set takes."""

    layers: tuple[int, ...]
    """Ascending."""
    k: int

    @property
    def n_sets(self) -> int:
        """Number of k-subsets."""
        return math.comb(len(self.layers), self.k)


@dataclass(frozen=True, kw_only=True)
class Population:
    """All sets with the given composition, optionally without one of them."""

    strata: tuple[Stratum, ...]
    without: tuple[int, ...] | None = None
    """The set that is never drawn, ascending."""
    seed: int = 0
    """Selects the random order."""

    @property
    def n_sets(self) -> int:
        """Number of sets that can be drawn."""
        return math.prod(s.n_sets for s in self.strata) - (self.without is not None)

    def draw(self, index: int) -> tuple[int, ...]:
        """Returns the set of one draw, ascending. Raises IndexError beyond the last."""
        if not 0 <= index < self.n_sets:
            raise IndexError(index)
        place = permuted(index, self.n_sets, self.seed)
        if self.without is not None and place >= self._place(self.without):
            place += 1
        layers: list[int] = []
        for stratum in self.strata:
            place, own = divmod(place, stratum.n_sets)
            layers += [stratum.layers[i] for i in subset_at(own, len(stratum.layers), stratum.k)]
        return tuple(sorted(layers))

    def _place(self, layers: Sequence[int]) -> int:
        place, scale = 0, 1
        for stratum in self.strata:
            own = [i for i, layer in enumerate(stratum.layers) if layer in layers]
            place += scale * rank_of(own, len(stratum.layers))
            scale *= stratum.n_sets
        return place


def permuted(index: int, size: int, seed: int = 0) -> int:
    """Returns the image of `index` under a pseudo-random permutation of range(size), without listing it.

    `seed` selects the permutation, a four-round Feistel network on the next even number of bits that is iterated until
    the result is below `size`. Source: Black & Rogaway 2002, "Ciphers with arbitrary finite domains", section 4 (cycle
    walking) and 5 (Feistel).
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(4 * seed, 4 * seed + 4):
            digest = hashlib.sha256(f"m3i random layers {size} {turn} {right}".encode()).digest()
            left, right = right, left ^ (int.from_bytes(digest[:16], "big") & mask)
        index = left << half | right
        if index < size:
            return index


def subset_at(index: int, n: int, k: int) -> list[int]:
    """Returns the k-subset of range(n) at a place in lexicographic order, ascending. Source: Knuth, TAOCP 7.2.1.3."""
    subset: list[int] = []
    item = 0
    while len(subset) < k:
        with_item = math.comb(n - item - 1, k - len(subset) - 1)
        if index < with_item:
            subset.append(item)
        else:
            index -= with_item
        item += 1
    return subset


def rank_of(subset: Sequence[int], n: int) -> int:
    """Returns the place of a k-subset of range(n) in lexicographic order: the inverse of `subset_at`."""
    rank, previous, k = 0, -1, len(subset)
    for place, item in enumerate(subset):
        rank += sum(math.comb(n - skipped - 1, k - place - 1) for skipped in range(previous + 1, item))
        previous = item
    return rank
