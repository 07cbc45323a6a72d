"""The component: what is handed to MLflow, and the identity under which it is found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from m3i import Component, InputError, option, require

from . import run_facts, sweep_facts
from .address import ACCEPTED, holds_credentials
from .service import Service, require_mlflow, service

if TYPE_CHECKING:
    from m3i import TargetInfo

PARENT = "mlflow.parentRunId"
SWEEP = "m3i.sweep"


@dataclass(kw_only=True)
class MLflow(Component):
    """Logs runs and sweeps to MLflow: options, statistics, training curves, times and files.

    A sweep is a parent run with the runs of its arms below it. What MLflow already holds is not logged again. Needs the
    extra `mlflow`; MLflow's own telemetry is switched off.
    """

    tracking_uri: str = option("", result_free=True)
    """MLflow's address: `http://...`, `sqlite:////path/mlflow.db`, `databricks`. Empty: the variable
    MLFLOW_TRACKING_URI, else MLflow's own default, `mlflow.db` in the working folder. It must hold no user name,
    password or query; put such an address in that variable."""
    experiment: str = option("m3i", result_free=True)
    """Name of the MLflow experiment; created if there is none."""
    log_artifacts: bool = option(True, result_free=True)
    """Also upload result.json, report.html and the table of judgements (results.parquet)."""

    def __post_init__(self) -> None:
        """Checks the values."""
        bad = holds_credentials(self.tracking_uri)
        shown = "[an address]" if bad else self.tracking_uri
        require(not bad and self.tracking_uri == self.tracking_uri.strip(), "tracking_uri", shown, ACCEPTED)
        good = bool(self.experiment.strip()) and len(self.experiment) <= 500 and self.experiment.isprintable()
        require(good, "experiment", self.experiment, "a name of at most 500 characters")

    def check(self, info: TargetInfo) -> None:
        """Raises ConfigError, before anything expensive, if MLflow is not installed."""
        require_mlflow(self.tracking_uri)

    def track_run(self, result: Mapping[str, Any], folder: Path) -> str:
        """Logs one run, unless MLflow holds it already."""
        with service(self.tracking_uri, self.experiment) as mlflow:
            run_id = self._log_run(mlflow, result, folder)
        return f"experiment '{self.experiment}', run {run_id}"

    def track_sweep(self, sweep: Mapping[str, Any], folder: Path) -> str:
        """Logs a parent run with the sweep's verdict and puts its runs below it, logging those that are missing."""
        name = folder.resolve().name
        facts = sweep_facts.facts(sweep, name=name)
        with service(self.tracking_uri, self.experiment) as mlflow:
            parent = mlflow.begin(facts)
            with mlflow.marking(parent):
                n = 0
                for file in sorted(folder.rglob("result.json")):
                    result = _readable(file)
                    if result is not None:
                        child = self._log_run(mlflow, result, file.parent)
                        mlflow.tag(child, {PARENT: parent, SWEEP: name})
                        n += 1
                if not mlflow.is_finished(parent):
                    mlflow.fill(parent, facts)
                    self._upload(mlflow, parent, folder, ("sweep.json", "plan.json", "report.html"))
        return f"experiment '{self.experiment}', run {parent} with {n} below it"

    def _log_run(self, mlflow: Service, result: Mapping[str, Any], folder: Path) -> str:
        facts = run_facts.facts(result)
        run_id = mlflow.begin(facts)
        if not mlflow.is_finished(run_id):
            with mlflow.marking(run_id):
                mlflow.fill(run_id, facts)
                self._upload(mlflow, run_id, folder, ("result.json", "report.html"))
        return run_id

    def _upload(self, mlflow: Service, run_id: str, folder: Path, names: tuple[str, ...]) -> None:
        if not self.log_artifacts:
            return
        from m3i.results.table import write_judgements

        mlflow.upload(run_id, [folder / name for name in names if (folder / name).is_file()])
        with TemporaryDirectory() as scratch:
            mlflow.upload(run_id, write_judgements(folder, into=Path(scratch))[:1])


def _readable(file: Path) -> Mapping[str, Any] | None:
    """The result; None if it cannot be read, which the sweep counts among its failures."""
    from m3i.results.stored import OF_THE_PAGE, read_result

    try:
        return read_result(file, OF_THE_PAGE)
    except InputError:
        return None
