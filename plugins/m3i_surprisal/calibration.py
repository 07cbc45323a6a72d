"""Thresholds from correct traces, cross-fitted so that no trace helps to set its own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np


def fold_of(problem_id: str, n_folds: int) -> int:
    """The fold of a problem; all its traces share it, since samples of one prompt resemble each other."""
    return int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:8], "big") % n_folds


def conformal_threshold(calibration: Sequence[float], false_positive_rate: float) -> float:
    """The threshold that a new exchangeable score exceeds with at most the given probability.

    Args:
        calibration: Scores of correct traces.
        false_positive_rate: In (0, 1).

    Returns:
        The ⌈(n + 1)(1 − rate)⌉-th smallest of n scores; infinity if n is too small for the rate.

    Source: Vovk et al. 2005, "Algorithmic Learning in a Random World"; Angelopoulos & Bates 2107.07511, equation 1.
    """
    rank = math.ceil((len(calibration) + 1) * (1 - false_positive_rate) - 1e-9)
    if rank > len(calibration):
        return math.inf
    return float(np.sort(np.asarray(calibration, dtype=float))[rank - 1])


def smallest_pool(false_positive_rate: float) -> int:
    """The number of correct traces needed for a finite threshold at this rate."""
    return math.ceil(1 / false_positive_rate - 1e-9) - 1


def auroc(wrong: Sequence[float], right: Sequence[float]) -> float | None:
    """P(an incorrect trace scores above a correct one), ties counted half; None if either side is empty."""
    if not len(wrong) or not len(right):
        return None
    from scipy.stats import rankdata

    ranks = rankdata([*wrong, *right])[: len(wrong)]
    return float((ranks.sum() - len(wrong) * (len(wrong) + 1) / 2) / (len(wrong) * len(right)))
