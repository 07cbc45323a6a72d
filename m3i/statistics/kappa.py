"""Agreement of two raters beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


def kappa(one: Sequence[str], other: Sequence[str]) -> dict[str, Any]:
    """Returns raw agreement and Cohen's kappa of two raters over the units that both rated (empty words are unrated).

    Returns:
        `n`, `agreement`, `kappa`; kappa is None where a rater gives every unit the same rating, since
        agreement beyond chance then cannot show.

    Source: Cohen 1960, Educational and Psychological Measurement 20, equation 1.
    """
    pairs = Counter((a, b) for a, b in zip(one, other, strict=True) if a and b)
    n = sum(pairs.values())
    if not n:
        return {"n": 0, "agreement": None, "kappa": None}
    observed = sum(count for (a, b), count in pairs.items() if a == b) / n
    margins: list[Counter[str]] = [Counter(), Counter()]
    for words, count in pairs.items():
        for margin, word in zip(margins, words, strict=True):
            margin[word] += count
    chance = sum(margins[0][word] * margins[1][word] for word in margins[0]) / n**2
    constant = any(len(margin) == 1 for margin in margins)
    return {"n": n, "agreement": observed, "kappa": None if constant else (observed - chance) / (1 - chance)}
