"""Several tests at once: p-values that stay valid when the smallest of many is picked."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns Holm's adjusted p-values, in the order given; None (no test was made) stays None and is not counted.

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection at most alpha, whatever
    the dependence between the tests. Source: Holm 1979, Scandinavian Journal of Statistics 6, section 3.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted
