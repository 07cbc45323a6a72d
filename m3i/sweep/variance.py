"""Where the spread of the random arms comes from, by endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from m3i.statistics import VarianceSplit, variance_split
from m3i.sweep.design import Design
from m3i.sweep.endpoints import Endpoint


def split(end: Endpoint, design: Design) -> VarianceSplit | None:
    """Returns the variance split over the tested random arms; None without one, or with fewer than two problems."""
    if not design.controls or not design.seeds or len(end.problems) < 2:
        return None
    return variance_split(np.stack([end.arm_SPG(arm, design.seeds) for arm in design.controls]))


def variance_section(ends: Sequence[Endpoint], design: Design) -> list[dict[str, Any]]:
    """Returns one entry per endpoint: its components, each with its share of the variance of a single score."""
    section = []
    for end in ends:
        found = split(end, design)
        entry: dict[str, Any] = {
            "endpoint": end.name,
            "draws": len(design.controls),
            "seeds": len(design.seeds),
            "problems": len(end.problems),
            "generation_seeds": len(design.generation_seeds),
            "total": None,
            "components": [],
            "why": "No random arm has all training seeds, or fewer than two problems are shared by all arms.",
        }
        if found is not None:
            shares = found.shares()
            entry |= {
                "total": found.total(),
                "components": [asdict(c) | {"share": shares[c.name]} for c in found.components],
                "why": "" if found.total() > 0 else "All scores of the random arms are the same.",
            }
        section.append(entry)
    return section
