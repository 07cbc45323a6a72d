"""What the selectors share: candidate layers, the score they read, and its ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from m3i import Component, ConfigError, LayerScores, SelectionRequest, TargetInfo, did_you_mean, require


@dataclass(kw_only=True)
class FromCandidates(Component):
    """Base class of selectors that choose among candidate layers."""

    libraries: ClassVar[tuple[str, ...]] = ()

    candidates: Any = "default"
    """Layers to choose from: `default` (those with a router in a mixture-of-experts model, else all), `all`, or a list
    of layer numbers from 0."""

    def __post_init__(self) -> None:
        """Checks the values."""
        named = self.candidates in ("default", "all") if isinstance(self.candidates, str) else False
        listed = isinstance(self.candidates, (list, tuple)) and is_layer_list(self.candidates)
        require(
            named or listed, "selector.candidates", self.candidates, "default, all, or a list of distinct layer numbers"
        )

    def check(self, info: TargetInfo) -> None:
        """Refuses layers that the target does not have."""
        self.pool(info)

    def pool(self, info: TargetInfo) -> tuple[int, ...]:
        """Returns the candidates of a target, ascending. Raises ConfigError for a layer that it does not have."""
        if self.candidates == "default":
            return info.default_candidates()
        if self.candidates == "all":
            return tuple(range(info.n_layers))
        return existing_layers("selector.candidates", self.candidates, info)


@dataclass(kw_only=True)
class CountFromCandidates(FromCandidates):
    """Base class of selectors that choose k of the candidates."""

    k: int = 3
    """Number of layers to select, from 1 to the number of candidates."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        require(self.k >= 1, "selector.k", self.k, "at least 1")

    def pool(self, info: TargetInfo) -> tuple[int, ...]:
        """Returns the candidates of a target. Raises ConfigError if there are fewer than k."""
        pool = super().pool(info)
        if self.k > len(pool):
            raise ConfigError(
                f"selector.k = {self.k}: {info.name} has {info.n_layers} layers, {len(pool)} of them candidates "
                f"({spell(pool)}); choose k up to {len(pool)}"
                + (", or selector.candidates=all" if self.k <= info.n_layers else "")
            )
        return pool


@dataclass(kw_only=True)
class ByScore(CountFromCandidates):
    """Base class of selectors that read an attributor's joint score."""

    attributor: str = ""
    """Name (or alias) of the attributor whose score is read; empty for the first of the panel."""


def read_scores(attributor: str, request: SelectionRequest) -> LayerScores:
    """Returns the scores that a selector reads.

    Raises:
        ConfigError: No such attributor ran.
    """
    names = list(request.scores)
    if not attributor and names:
        return _scored(request.scores[names[0]])
    if attributor not in request.scores:
        raise ConfigError(
            f"selector.attributor = '{attributor}': no such attributor ran{did_you_mean(attributor, names)} "
            f"Those that ran: {', '.join(names) or 'none'}; add it with attributor={'+'.join([*names, attributor])}"
        )
    return _scored(request.scores[attributor])


def _scored(scores: LayerScores) -> LayerScores:
    """Returns the scores. Raises ConfigError if no trace contributed to them."""
    if scores.joint().n_traces == 0:
        why = "; ".join(f"{n} × {reason}" for reason, n in scores.left_out.items()) or "no finding reached it"
        raise ConfigError(
            f"attributor '{scores.attributor}', which the selector reads, scored no failure ({why}): choose another "
            f"with selector.attributor, an observer that finds failures, or more traces"
        )
    return scores


def ranked(scores: LayerScores, pool: tuple[int, ...]) -> list[int]:
    """The candidates from the highest joint score down; of equal scores the lower layer comes first."""
    joint = scores.joint().scores
    return sorted(pool, key=lambda layer: (-joint[layer], layer))


def is_layer_list(values: Any) -> bool:
    """Whether this is a non-empty list of distinct whole numbers from 0."""
    whole = all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values)
    return whole and len(values) > 0 and len(set(values)) == len(values)


def existing_layers(option: str, layers: Any, info: TargetInfo) -> tuple[int, ...]:
    """Layers in ascending order. Raises ConfigError for one that the target does not have."""
    beyond = sorted(layer for layer in layers if layer >= info.n_layers)
    if beyond:
        raise ConfigError(
            f"{option} = {list(layers)}: {info.name} has {info.n_layers} layers, 0 to {info.n_layers - 1}; "
            f"there is no layer {spell(beyond)}"
        )
    return tuple(sorted(layers))


def spell(layers: Any) -> str:
    """The layers as text, with runs shortened: `1-4, 7`."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs) or "none"
