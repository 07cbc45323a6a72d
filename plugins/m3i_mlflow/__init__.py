"""The tracker `mlflow`: runs and sweeps in MLflow, on a server or on this machine."""

import m3i


@m3i.hookimpl
def register_trackers(register: m3i.Register) -> None:
    """Offers `mlflow`."""
    from .tracker import MLflow

    register("mlflow", MLflow)
