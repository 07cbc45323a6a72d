"""Agreement on labels beyond chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def krippendorff_alpha(labels: Sequence[Sequence[Hashable | None]]) -> float | None:
    """Returns Krippendorff's alpha of nominal labels: 1 for perfect agreement, 0 for chance, negative for opposition.

    Args:
        labels: One row per observer, one label per unit; None where an observer did not label a unit.

    Returns:
        1 − observed / expected disagreement. None where it is undefined: no unit has two labels, or those that have
        all carry the same label, so that agreement beyond chance cannot show.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C (nominal data, any number of
    observers, missing data). All units count equally, although neighbouring tokens are not independent evidence.
    """
    codes = {label: i for i, label in enumerate({x: None for row in labels for x in row if x is not None})}
    if not codes:
        return None
    counts_UV = np.zeros((len(labels[0]), len(codes)))
    for row in labels:
        coded = np.array([codes.get(x, -1) if x is not None else -1 for x in row])
        given = np.flatnonzero(coded >= 0)
        counts_UV[given, coded[given]] += 1
    return alpha_of_counts(counts_UV)


def alpha_of_counts(counts_UV: np.ndarray) -> float | None:
    """Returns the same alpha from the number of observers that gave each unit (row) each label (column)."""
    pairable_UV = counts_UV[counts_UV.sum(axis=1) >= 2]
    given_U = pairable_UV.sum(axis=1)
    total_V = pairable_UV.sum(axis=0)
    n = float(total_V.sum())
    expected = n * n - float((total_V**2).sum())
    if n == 0 or expected == 0:
        return None
    # Ordered pairs of unlike labels in a unit, each weighted by 1 / (labels in the unit − 1).
    unlike_U = given_U**2 - (pairable_UV**2).sum(axis=1)
    observed = float((unlike_U / (given_U - 1)).sum())
    return 1.0 - (n - 1) * observed / expected
