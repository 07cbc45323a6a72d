"""One row per held-out problem: how base, attributed and random arms did on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from m3i.sweep.design import Design
from m3i.sweep.endpoints import Endpoint
from m3i.sweep.load import LoadedSweep


def problem_rows(sweep: LoadedSweep, primary: Endpoint, accuracy: Endpoint, design: Design) -> list[dict[str, Any]]:
    """Returns means per problem over training and generation seeds, and over the tested random arms.

    Args:
        sweep: Gives the texts.
        primary: The registered endpoint.
        accuracy: The verifier's accuracy.
        design: Arms and seeds of the test.

    Returns:
        `base`, the share of correct answers; `attributed` and `controls` with `accuracy` and `score` (the primary
        endpoint; None where a judgement is missing in some arm); `difference` of the primary endpoint.
    """
    texts = {row["problem_id"]: row for row in sweep.run["problems"]["rows"]}
    right = {p: i for i, p in enumerate(accuracy.problems)}
    scored = {p: i for i, p in enumerate(primary.problems)}

    def means(end: Endpoint) -> dict[str, Any]:
        own = end.arm_SPG("attributed", design.seeds).mean(axis=(0, 2)) if design.seeds else None
        arms = [end.arm_SPG(arm, design.seeds).mean(axis=(0, 2)) for arm in design.controls]
        return {"attributed": own, "controls": np.mean(arms, axis=0) if arms else None}

    score, share = means(primary), means(accuracy)
    base_P = accuracy.base_PG.mean(axis=1)
    rows = []
    for problem, text in texts.items():
        row: dict[str, Any] = {
            "problem_id": problem,
            "prompt": text["prompt"],
            "answer": text["answer"],
            "base": float(base_P[right[problem]]),
            "left_out": problem not in scored,
            "difference": None,
        }
        for side in ("attributed", "controls"):
            row[side] = {
                "accuracy": _at(share[side], right.get(problem)),
                "score": _at(score[side], scored.get(problem)),
            }
        if row["attributed"]["score"] is not None and row["controls"]["score"] is not None:
            row["difference"] = row["attributed"]["score"] - row["controls"]["score"]
        rows.append(row)
    return rows


def _at(values: Any, place: int | None) -> float | None:
    return None if values is None or place is None else float(values[place])
