"""The mean score at equal length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from m3i.statistics import TIE, Estimate


def length_adjusted(*, extra: Sequence[float], scores: Sequence[float], level: float = 0.95) -> Estimate | None:
    """Returns the mean score at equal length, from a linear fit of the score on the difference in length.

    Args:
        extra: Tokens of the tuned answer minus the base's, one per problem.
        scores: Mean score of the problem, 0 to 1.
        level: Confidence level.

    Returns:
        The intercept of ordinary least squares with an HC3 interval, within 0 to 1; `degenerate` where all scores are
        equal. None where lengths never differ, or with fewer than four problems.

    Source: length as a covariate: Dubois et al. 2404.04475, here linear instead of logistic, since ties score ½; HC3:
    MacKinnon & White 1985, Journal of Econometrics 29; Long & Ervin 2000.
    """
    if len(extra) != len(scores):
        raise ValueError(f"{len(extra)} lengths for {len(scores)} scores: expected one per problem")
    n = len(scores)
    if n < 4 or len(set(extra)) == 1:
        return None
    from scipy.stats import t

    x_P2 = np.column_stack([np.ones(n), np.asarray(extra, dtype=float)])
    y_P = np.asarray(scores, dtype=float)
    inverse = np.linalg.inv(x_P2.T @ x_P2)
    beta = inverse @ x_P2.T @ y_P
    leverage_P = np.einsum("pi,ij,pj->p", x_P2, inverse, x_P2)
    if leverage_P.max() > 1 - 1e-9:  # one problem alone sets the slope: its residual is 0 whatever the noise
        return None
    weight_P = ((y_P - x_P2 @ beta) / (1 - leverage_P)) ** 2
    variance = inverse @ (x_P2.T * weight_P) @ x_P2 @ inverse
    alike = bool(np.ptp(y_P) < TIE)  # the residuals are only rounding
    half = 0.0 if alike else float(t.ppf(0.5 + level / 2, n - 2)) * math.sqrt(max(0.0, float(variance[0, 0])))
    value = float(y_P[0] if alike else np.clip(beta[0], 0, 1))
    return Estimate(
        value=value,
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        level=level,
        n=n,
        method="least squares at equal length, HC3",
        degenerate=half < TIE,
    )
