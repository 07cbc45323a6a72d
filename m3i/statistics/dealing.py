"""Random orders of rows for permutation tests, with whole clusters as the unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def dealt_orders(
    *, clusters: Sequence[str], rng: np.random.Generator, draws: int, kinds: Sequence[bool] | None = None
) -> Iterator[np.ndarray]:
    """Yields random orders of the rows that permute whole clusters, and rows within their cluster.

    Rows of one cluster stay together, so that similarity within a cluster of one rater's values never looks like
    agreement between two raters. A cluster takes the place of another one with as many rows (of each kind).

    Args:
        clusters: Cluster (problem id) of each row.
        rng: Source of the draws.
        draws: Number of orders.
        kinds: Kind of each row, if a row may only take the value of another row of its kind.

    Yields:
        For each draw, the index of the row whose value each row gets.

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
