"""Routing flips: tokens at which a router resolves a near-tie differently in the two runtimes.

A mixture-of-experts layer is discontinuous: two runtimes whose router logits differ in the last digits choose different
experts where the k-th and the next expert are nearly tied, and the outputs then differ by far more than rounding. Such
tokens say nothing about an export. But a router whose update never arrived also chooses other experts, and that is
exactly what a certificate must see. The rule: a disagreement is a flip, to be left out and counted, only if the margin
between the k-th and the next expert in transformers is at most `TIE` times the router noise measured between the two
runtimes on the base model; every other disagreement stays in the errors.

Letters: M layers with a router, N probe tokens, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FEWEST_SHARE = 0.25
TIE = 8.0
"""Margins up to this many times the noise count as ties: noise is a root mean square, and two logits are compared."""


def experts(routers_MNE: np.ndarray, n_used: int) -> np.ndarray:
    """Bool [M, N, E]: the n_used experts with the largest logits (the lower index among equals)."""
    order_MNE = np.argsort(-routers_MNE, axis=-1, kind="stable")[..., :n_used]
    chosen_MNE = np.zeros(routers_MNE.shape, dtype=bool)
    np.put_along_axis(chosen_MNE, order_MNE, True, axis=-1)
    return chosen_MNE


def margin(routers_MNE: np.ndarray, n_used: int) -> np.ndarray:
    """[M, N]: logit of the n_used-th expert minus that of the next; infinite when all experts are used."""
    if routers_MNE.shape[-1] <= n_used:
        return np.full(routers_MNE.shape[:-1], np.inf)
    sorted_MNE = -np.sort(-routers_MNE, axis=-1)
    return np.asarray(sorted_MNE[..., n_used - 1] - sorted_MNE[..., n_used])


def router_noise(reference_MNE: np.ndarray, other_MNE: np.ndarray) -> float:
    """Root mean square difference of the logits, less each token's mean difference (softmax does not see it).

    Taken as the median over tokens and layers of the mean squares: a token whose experts differ in an earlier layer is
    not noise.
    """
    if not reference_MNE.size:
        return 0.0
    off_MNE = other_MNE.astype(np.float64) - reference_MNE
    off_MNE -= off_MNE.mean(axis=-1, keepdims=True)
    return float(np.sqrt(np.median(np.mean(off_MNE**2, axis=-1))))


def flips(reference_MNE: np.ndarray, other_MNE: np.ndarray, n_used: int, noise: float) -> np.ndarray:
    """Bool [N]: tokens at which some layer's choice differs and was a near-tie in the reference.

    Layers above the first disagreement see another input, so a token is judged by the *first* layer that disagrees.
    """
    if not reference_MNE.size:
        return np.zeros(reference_MNE.shape[1], dtype=bool)
    differs_MN = (experts(reference_MNE, n_used) != experts(other_MNE, n_used)).any(axis=-1)
    first_N = differs_MN.argmax(axis=0)
    margin_N = np.take_along_axis(margin(reference_MNE, n_used), first_N[None], axis=0)[0]
    return np.asarray(differs_MN.any(axis=0) & (margin_N <= TIE * noise))


def left_out(flips_N: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Bool [N]: the flips and the tokens after them in their trace, or only the flips if too little would remain.

    Args:
        flips_N: The flips of all traces, one trace after the other.
        lengths: Tokens of each trace.
    """
    after = [np.maximum.accumulate(part) for part in np.split(flips_N, np.cumsum(lengths)[:-1])]
    after_N = np.concatenate(after)
    return after_N if (~after_N).mean() >= FEWEST_SHARE else flips_N
