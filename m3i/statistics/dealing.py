"""Orders that deal a column's values out anew, with whole clusters as the unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def dealt_orders(*, clusters: Sequence[str], rng: np.random.Generator, draws: int) -> Iterator[np.ndarray]:
    """Random orders of the rows for a permutation test: clusters change places whole, and rows within their cluster.

    Rows of one cluster stay together, so that what one of two raters has in common within a cluster never looks like
    something that both have in common. A cluster takes the place of another one with as many rows.

    Args:
        clusters: Cluster (problem id) of each row.
        rng: For the draws.
        draws: Number of orders.

    Yields:
        For each draw, the row whose value each row gets.

    Source: restricted permutations of exchangeable blocks, Winkler et al. 2015, NeuroImage 123.
    """
    rows: dict[str, list[int]] = {}
    for i, cluster in enumerate(clusters):
        rows.setdefault(cluster, []).append(i)
    sizes: dict[int, list[list[int]]] = {}
    for members in rows.values():
        sizes.setdefault(len(members), []).append(members)
    blocks = [np.array(members) for members in sizes.values()]
    for _ in range(draws):
        order_N = np.arange(len(clusters))
        for index_CS in blocks:
            order_N[index_CS] = rng.permuted(rng.permutation(index_CS), axis=1)
        yield order_N
