"""Tracker `mlflow`: runs and sweeps in MLflow, on a server or on this machine."""

from __future__ import annotations

from typing import Any

import m3i


@m3i.hookimpl
def register_trackers(register: Any) -> None:
    """Registers `mlflow`."""
    from m3i_mlflow.tracker import MLflow

    register("mlflow", MLflow)
