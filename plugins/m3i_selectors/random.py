"""Random layers, matched in number: the control that every attribution needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from m3i import ConfigError, LayerSelection, SelectionRequest, TargetInfo, permuted, rank_of, require, subset_at

from .candidates import ByScore, ranked, read_scores, spell

EXCLUDE = ("", "attributed", "attributed_set")


@dataclass(kw_only=True)
class RandomLayers(ByScore):
    """Selects k random candidates; seeds 0, 1, 2, ... visit all k-subsets in random order without repetition.

    Since no set comes twice, R seeds are R distinct controls. A randomization test needs controls drawn from the whole
    population of sets that the attributed one could have come from. The default does that, and so does
    `exclude=attributed_set`, which skips only the attributed set. Sets without any attributed layer
    (`exclude=attributed`) are a contrast worth seeing but give no valid p value.
    """

    seed: int = 0
    """Number of the draw, from 0; below the number of distinct sets."""
    exclude: str = ""
    """What is excluded: nothing, every set that contains an `attributed` layer, or the `attributed_set` itself."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        require(self.seed >= 0, "selector.seed", self.seed, "an integer from 0")
        require(self.exclude in EXCLUDE, "selector.exclude", self.exclude, "'', attributed or attributed_set")

    def check(self, info: TargetInfo) -> None:
        """Refuses a seed beyond the number of distinct sets, which is known before any score."""
        n_pool = len(self.pool(info))
        self.count(n_pool - self.k if self.exclude == "attributed" else n_pool, "")

    def count(self, n_layers: int, why: str) -> int:
        """Returns the number of distinct sets of k of `n_layers` layers. Raises ConfigError for a seed beyond it."""
        n_sets = math.comb(n_layers, self.k) - (self.exclude == "attributed_set")
        if self.seed >= n_sets:
            raise ConfigError(
                f"selector.seed = {self.seed}: there are {n_sets} distinct sets of {self.k} of {n_layers} layers"
                f"{why}; choose a seed below {n_sets}"
                if n_sets
                else f"selector.k = {self.k}: there is no set of {self.k} of {n_layers} layers{why}; "
                f"choose a smaller k or another selector.exclude"
            )
        return n_sets

    def select(self, request: SelectionRequest) -> LayerSelection:
        """Returns the seed's subset.

        Raises:
            ConfigError: The seed is beyond the number of distinct sets, which the message states.
        """
        pool = self.pool(request.info)
        drawn_from, skipped, why = pool, -1, ""
        if self.exclude:
            scores = read_scores(self.attributor, request)
            attributed = sorted(ranked(scores, pool)[: self.k])
            if self.exclude == "attributed":
                drawn_from = tuple(layer for layer in pool if layer not in attributed)
                why = f" without the {self.k} attributed by {scores.attributor} ({spell(attributed)})"
            else:
                skipped = rank_of([pool.index(layer) for layer in attributed], len(pool))
                why = f", excluding the set attributed by {scores.attributor} ({spell(attributed)})"
        n_sets = self.count(len(drawn_from), why)
        index = permuted(self.seed, n_sets)
        index += skipped >= 0 and index >= skipped
        layers = tuple(drawn_from[i] for i in subset_at(index, len(drawn_from), self.k))
        return LayerSelection(
            layers=layers,
            candidates=pool,
            reason=f"random draw {self.seed} of the {n_sets} sets of {self.k} of {len(drawn_from)} layers{why}: "
            f"{spell(layers)}",
        )
