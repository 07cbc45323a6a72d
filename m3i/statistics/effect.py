"""How far the attributed arm lies from its controls, over problems and training seeds.

Shape suffixes: R controls, S training seeds, P problems.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3i.statistics.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class ControlEffect:
    """The attributed arm against the mean of this sweep's controls."""

    difference: Estimate
    """Mean score of the attributed arm minus that of the controls; n is the number of problems."""
    se: float
    """Standard error of the difference; 0 only where nothing varies (`difference.degenerate`)."""
    df: float
    """Satterthwaite's degrees of freedom of its t interval."""
    sd_controls: float | None
    """Standard deviation of T among controls; None with one control."""
    standardised: float | None
    """Difference in standard deviations of the controls' T; None where they do not vary."""
    n_seeds: int
    """Training seeds; with one, the interval covers problems only and says nothing about other training runs."""


def control_effect(*, attributed_SP: npt.ArrayLike, controls_RSP: npt.ArrayLike, level: float = 0.95) -> ControlEffect:
    """Returns the attributed arm minus its controls, with an interval over problems x training seeds.

    The interval takes the drawn sets as fixed (the randomization test covers their draw) and covers what other problems
    and other training runs would have given. The mean of the differences d(s, p) in a two-way random layout has
    variance [MS_seed + max(0, MS_problem − MS_seed x problem)] / (S P); the interval uses Student's t with
    Satterthwaite's degrees of freedom.

    It was preferred to the percentile bootstrap that resamples problems and seeds for its simulated coverage at a
    nominal 95 %. With 3 seeds the bootstrap covers up to 99 %, since it counts the noise within cells up to three times
    (Owen 2007), and too little where only training runs differ (three resampled seeds have 2/3 of their variance, and
    there is no t). This interval covers 94 to 97 %, but 92 % with two seeds where training runs differ, and 92 % with
    three where hardly anything else does (bootstrap: 80 %); only more seeds help there. See
    `python -m bench.sweep_statistics`.

    Args:
        attributed_SP: Problem-level scores of the attributed arm by training seed, already averaged over orders,
            generation seeds and judges, so that these stay together.
        controls_RSP: The same for each control.
        level: Confidence level.

    Raises:
        ValueError: Shapes that do not match, fewer than two problems, no control, or a missing value.

    Source: the random readers x random cases analysis, Dorfman, Berbaum & Metz 1992, Investigative Radiology 27, with
    degrees of freedom after Hillis 2007 (Statistics in Medicine 26), here including the problems' share;
    Satterthwaite 1946, Biometrics Bulletin 2. Standardised: Glass 1976 (control-group standard deviation).
    """
    a_SP, c_RSP = np.asarray(attributed_SP, dtype=float), np.asarray(controls_RSP, dtype=float)
    if a_SP.ndim != 2 or c_RSP.ndim != 3 or c_RSP.shape[1:] != a_SP.shape or 0 in c_RSP.shape:
        raise ValueError(
            f"shapes {a_SP.shape} and {c_RSP.shape}: expected (seeds, problems) and (controls, seeds, problems)"
        )
    if a_SP.shape[1] < 2:
        raise ValueError("one problem: expected two or more")
    if not (np.isfinite(a_SP).all() and np.isfinite(c_RSP).all()):
        raise ValueError("a score is missing: leave that problem out of every arm and count it")
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: expected a number between 0 and 1")
    value, se, df = two_way_error(a_SP - c_RSP.mean(axis=0))
    from scipy.stats import t

    half = float(t.ppf(0.5 + level / 2, df)) * se if se > 0 else 0.0
    t_R = c_RSP.mean(axis=(1, 2))
    sd = float(t_R.std(ddof=1)) if len(t_R) > 1 else None
    S, P = a_SP.shape
    return ControlEffect(
        difference=Estimate(
            value=value,
            low=value - half,
            high=value + half,
            level=level,
            n=P,
            method="problems x training seeds, Satterthwaite t" if S > 1 else "t over problems, one training seed",
            degenerate=se == 0,
        ),
        se=se,
        df=df,
        sd_controls=sd,
        standardised=value / sd if sd is not None and sd > 1e-12 else None,
        n_seeds=S,
    )


def two_way_error(d_SP: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Returns mean, standard error and degrees of freedom of a two-way random layout with one value per cell."""
    S, P = d_SP.shape
    mean = float(d_SP.mean())
    if np.ptp(d_SP) < 1e-12:
        return mean, 0.0, float(P - 1)
    seed_S, problem_P = d_SP.mean(axis=1), d_SP.mean(axis=0)
    ms_problem = S * float(problem_P.var(ddof=1))
    if S == 1:
        return mean, math.sqrt(ms_problem / P), float(P - 1)
    ms_seed = P * float(seed_S.var(ddof=1))
    ms_rest = float(((d_SP - seed_S[:, None] - problem_P + mean) ** 2).sum()) / ((S - 1) * (P - 1))
    from_problems = max(0.0, ms_problem - ms_rest)
    total = ms_seed + from_problems
    if total < 1e-24:  # Neither mean varies: fall back on the spread of the cells.
        return mean, math.sqrt(ms_rest / (S * P)), float((S - 1) * (P - 1))
    spread = ms_seed**2 / (S - 1)
    if from_problems:
        spread += ms_problem**2 / (P - 1) + ms_rest**2 / ((S - 1) * (P - 1))
    # A sum of mean squares has at least the df of its scarcest term; for a difference the formula can give less.
    return mean, math.sqrt(total / (S * P)), max(total**2 / spread, float(S - 1))
