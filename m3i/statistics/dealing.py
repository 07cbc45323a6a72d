"""Orders that deal a column's values out anew, with whole clusters as the unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def dealt_orders(
    *, clusters: Sequence[str], rng: np.random.Generator, draws: int, kinds: Sequence[bool] | None = None
) -> Iterator[np.ndarray]:
    """Random orders of the rows for a permutation test: clusters change places whole, and rows within their cluster.

    Rows of one cluster stay together, so that what one of two raters has in common within a cluster never looks like
    something that both have in common. A cluster takes the place of another one with as many rows (of each kind).

    Args:
        clusters: Cluster (problem id) of each row.
        rng: For the draws.
        draws: Number of orders.
        kinds: Kind of each row, where a row may only take the value of another one of its kind.

    Yields:
        For each draw, the row whose value each row gets.

    Source: restricted permutations of exchangeable blocks, Winkler et al. 2015, NeuroImage 123.
    """
    rows: dict[str, tuple[list[int], list[int]]] = {}
    for i, cluster in enumerate(clusters):
        rows.setdefault(cluster, ([], []))[bool(kinds[i]) if kinds is not None else False].append(i)
    sizes: dict[tuple[int, int], list[tuple[list[int], list[int]]]] = {}
    for members in rows.values():
        sizes.setdefault((len(members[0]), len(members[1])), []).append(members)
    alike = [[np.array(one_kind) for one_kind in zip(*members, strict=True)] for members in sizes.values()]
    for _ in range(draws):
        order_N = np.arange(len(clusters))
        for blocks in alike:
            place_C = rng.permutation(len(blocks[0]))
            for index_CS in blocks:
                if index_CS.size:
                    order_N[index_CS] = rng.permuted(index_CS[place_C], axis=1)
        yield order_N
