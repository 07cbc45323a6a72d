"""Where the spread of a sweep's scores comes from: problems, generation seeds, training seeds, layer draws.

Shape suffixes: D layer draws, S training seeds (within a draw), P problems, G generation seeds (within a problem).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NAMES = (
    "problem",
    "generation",
    "training",
    "draw",
    "problem x draw",
    "generation x draw",
    "problem x training",
    "residual",
)
# Where a source's variance goes if the design cannot separate it.
ONE_DRAW = {"draw": "", "problem x draw": "problem", "generation x draw": "generation"}
ONE_TRAINING = {"training": "draw", "problem x training": "problem x draw", "residual": "generation x draw"}
ONE_GENERATION = {
    "generation": "problem",
    "generation x draw": "problem x draw",
    "residual": "problem x training",
}


@dataclass(frozen=True, kw_only=True)
class VarianceComponent:
    """One source of variance."""

    name: str
    value: float | None
    """Variance of one score due to this source, in squared units of the score, never negative; None where the design
    cannot separate it (`why` says so)."""
    raw: float | None
    """The unbiased estimate, which can be negative where the true variance is near zero."""
    levels: int
    why: str
    """Why `value` is None, or which other sources it includes; empty otherwise."""


@dataclass(frozen=True, kw_only=True)
class VarianceSplit:
    """Components of a score's variance. Names: problem, generation, training, draw and four interactions."""

    components: tuple[VarianceComponent, ...]
    grand_mean: float

    def value(self, name: str) -> float:
        """Returns the component's variance; 0 where it could not be separated (it is then part of another one)."""
        found = next(c for c in self.components if c.name == name)
        return found.value or 0.0

    def total(self) -> float:
        """Returns the sum of all components: the variance of a single score."""
        return sum(c.value or 0.0 for c in self.components)

    def shares(self) -> dict[str, float | None]:
        """Returns each component's share of the total; None where it could not be separated or nothing varies."""
        total = self.total()
        return {c.name: None if c.value is None or total == 0 else c.value / total for c in self.components}

    def within_draw(self, *, problems: int, generation_seeds: int, training_seeds: int) -> float:
        """Returns the variance of a set's mean score that more problems or seeds would reduce.

        Problem and generation effects shared by all sets cancel between arms and are left out: this is the noise of T
        among controls, the `within` of `power_randomization`; `value("draw")` is the `between`.

        Raises:
            ValueError: A count below 1.
        """
        if min(problems, generation_seeds, training_seeds) < 1:
            raise ValueError("problems, generation_seeds and training_seeds: expected 1 or more of each")
        pg, s = problems * generation_seeds, training_seeds
        return (
            self.value("training") / s
            + self.value("problem x draw") / problems
            + self.value("generation x draw") / pg
            + self.value("problem x training") / (problems * s)
            + self.value("residual") / (pg * s)
        )


def variance_split(scores_DSPG: npt.ArrayLike) -> VarianceSplit:
    """Splits the variance of the scores of a sweep's random arms by random effects.

    Problems are crossed with arms; a generation seed belongs to its problem and is shared by the arms (they answer
    against the same base answer); a training seed belongs to its layer draw. Judges and orders are averaged beforehand.

    Args:
        scores_DSPG: One score per layer draw, training seed, problem and generation seed; tie = ½. Balanced: the caller
            leaves a problem with a missing judgement out of all arms, and counts it.

    Returns:
        Eight components, estimated by equating mean squares to their expectations. A negative estimate is reported as 0
        with the estimate itself in `raw`; the other components are not re-estimated. A source with one level has value
        None, and the component that holds its variance says so in `why`.

    Raises:
        ValueError: Not four axes, fewer than two problems, or a missing value.

    Source: Searle, Casella & McCulloch 1992, Variance Components, chapter 4 (ANOVA estimation, balanced data); the
    design is (G:P) x (S:D) in Brennan 2001, Generalizability Theory.
    """
    y_DSPG = np.asarray(scores_DSPG, dtype=float)
    if y_DSPG.ndim != 4 or 0 in y_DSPG.shape:
        raise ValueError(
            f"scores of shape {y_DSPG.shape}: expected draws x training seeds x problems x generation seeds"
        )
    if not np.isfinite(y_DSPG).all():
        raise ValueError("a score is missing: leave that problem out of every arm and count it")
    D, S, P, G = y_DSPG.shape
    if P < 2:
        raise ValueError(f"{P} problem: expected two or more")
    if D == 1:  # One draw: the training seeds stand in for draws with one training each.
        ms = mean_squares(y_DSPG.reshape(S, 1, P, G))
        raw = _solve(ms, S, 1, P, G)
        raw = raw | {"training": raw["draw"], "draw": 0.0, "problem x training": raw["problem x draw"]}
        raw = raw | {"residual": raw["generation x draw"], "problem x draw": 0.0, "generation x draw": 0.0}
    else:
        raw = _solve(mean_squares(y_DSPG), D, S, P, G)
    levels = {
        "problem": P, "generation": G, "training": S, "draw": D, "problem x draw": P * D,
        "generation x draw": P * G * D, "problem x training": P * S * D, "residual": P * G * S * D,
    }  # fmt: skip
    rounding = 1e-12 * sum(abs(value) for value in raw.values())
    raw = {name: 0.0 if abs(value) <= rounding else value for name, value in raw.items()}
    missing, merged = _confounded(D, S, G)
    return VarianceSplit(
        components=tuple(
            VarianceComponent(
                name=name,
                value=None if name in missing else max(0.0, raw[name]),
                raw=None if name in missing else raw[name],
                levels=levels[name],
                why=missing.get(name, merged.get(name, "")),
            )
            for name in NAMES
        ),
        grand_mean=float(y_DSPG.mean()),
    )


def mean_squares(y_DSPG: npt.NDArray[np.float64]) -> dict[str, float]:
    """Returns the mean square of each term of the design; 0 for a term without degrees of freedom."""
    D, S, P, G = y_DSPG.shape
    m, m_D, m_DS = y_DSPG.mean(), y_DSPG.mean((1, 2, 3)), y_DSPG.mean((2, 3))
    m_P, m_PG = y_DSPG.mean((0, 1, 3)), y_DSPG.mean((0, 1))
    m_DP, m_DPG, m_DSP = y_DSPG.mean((1, 3)), y_DSPG.mean(1), y_DSPG.mean(3)
    s_DS = m_DS - m_D[:, None]
    g_PG = m_PG - m_P[:, None]
    pd_DP = m_DP - m_D[:, None] - m_P + m
    gd_DPG = m_DPG - m_DP[:, :, None] - g_PG
    ps_DSP = m_DSP - m_DS[:, :, None] - m_DP[:, None] + m_D[:, None, None]
    e_DSPG = (y_DSPG - m_DSP[..., None]) - (m_DPG - m_DP[:, :, None])[:, None]

    def ms(deviations: npt.NDArray[np.float64], repeats: int, df: int) -> float:
        return repeats * float((deviations**2).sum()) / df if df else 0.0

    return {
        "problem": ms(m_P - m, D * S * G, P - 1),
        "generation": ms(g_PG, D * S, P * (G - 1)),
        "training": ms(s_DS, P * G, D * (S - 1)),
        "draw": ms(m_D - m, S * P * G, D - 1),
        "problem x draw": ms(pd_DP, S * G, (P - 1) * (D - 1)),
        "generation x draw": ms(gd_DPG, S, P * (G - 1) * (D - 1)),
        "problem x training": ms(ps_DSP, G, (P - 1) * D * (S - 1)),
        "residual": ms(e_DSPG, 1, P * (G - 1) * D * (S - 1)),
    }


def _solve(ms: dict[str, float], D: int, S: int, P: int, G: int) -> dict[str, float]:
    """Returns the components. A term without levels has mean square 0 and so merges into the next one."""
    e, gd, ps, pd = ms["residual"], ms["generation x draw"], ms["problem x training"], ms["problem x draw"]
    return {
        "problem": (ms["problem"] - ms["generation"] - pd + gd) / (D * S * G),
        "generation": (ms["generation"] - gd) / (D * S),
        "training": (ms["training"] - ps) / (P * G),
        "draw": (ms["draw"] - ms["training"] - pd + ps) / (S * P * G),
        "problem x draw": (pd - gd - ps + e) / (S * G),
        "generation x draw": (gd - e) / S,
        "problem x training": (ps - e) / G,
        "residual": e,
    }


def _confounded(D: int, S: int, G: int) -> tuple[dict[str, str], dict[str, str]]:
    """Returns why a source cannot be separated, by source, and which sources a component includes, by component."""
    missing: dict[str, str] = {}
    into: dict[str, str] = {}
    for count, why, moved in (
        (D, "one layer draw", ONE_DRAW),
        (S, "one training seed", ONE_TRAINING),
        (G, "one generation seed", ONE_GENERATION),
    ):
        if count == 1:
            missing |= dict.fromkeys(moved, why)
            into |= moved
    holds: dict[str, list[str]] = {}
    for source in into:
        target = source
        while target in into:
            target = into[target]
        if target:  # with one draw, its effect is common to all scores and part of no component
            holds.setdefault(target, []).append(source)
    return missing, {target: f"holds {', '.join(sources)}" for target, sources in holds.items()}
