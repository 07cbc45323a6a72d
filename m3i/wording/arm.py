"""Which arm a result belongs to, by its name and its components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3i.config.arms import ArmKind

CONTROL_SELECTORS = ("random", "bottom", "all", "none")
"""Selectors whose layers are a control, whatever the arm is named."""


def is_attributed(result: Mapping[str, Any]) -> bool:
    """Whether this run trained attributed layers: no control arm, and no selector whose layers are a control."""
    return result["arm"]["kind"] == ArmKind.ATTRIBUTED and selector_name(result) not in CONTROL_SELECTORS


def selector_name(result: Mapping[str, Any]) -> str:
    """Name of the selector that chose the layers; empty where the run did not record it."""
    return next((row["name"] for row in result["components"] if row["place"] == "selector"), "")
