"""MLflow itself, only through its client: no global state, no telemetry, and no address in a message."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from m3i import ConfigError, M3IError, StageError

from .address import ON_DISK, in_use, scheme_of, without_credentials
from .facts import IDENTITY, Facts, Metric, key, text

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true"}
"""MLflow reads this when it is imported; otherwise it would fetch a configuration from its makers and report its
use."""
FEW_RETRIES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
"""MLflow's own default of 7, each after twice the wait, would hold up every job of a sweep for minutes if no server
answers. What the user has set is kept."""
INSTALL = "pip install 'm3i[mlflow]'"
FINISHED = "FINISHED"


def require_mlflow(address: str) -> None:
    """Raises ConfigError if a package that MLflow needs for this address is missing."""
    used = in_use(address)
    database = scheme_of(used) not in (*ON_DISK[:2], "http", "https") or not used
    for package, needed in (("mlflow", True), ("sqlalchemy", database), ("alembic", database)):
        if needed and importlib.util.find_spec(package) is None:
            raise ConfigError(f"tracker=mlflow needs the package {package}, which is not installed; run: {INSTALL}")


@contextmanager
def service(address: str, experiment: str) -> Iterator[Service]:
    """Opens an experiment of the MLflow at an address; one process at a time if the store is an SQLite file.

    Raises:
        StageError: Whatever MLflow raises, without the address's user name and password.
    """
    require_mlflow(address)
    os.environ.update(NO_TELEMETRY)
    os.environ.setdefault(*FEW_RETRIES)
    try:
        import mlflow

        for name in ("mlflow", "alembic"):  # they announce every table of a new database
            logging.getLogger(name).setLevel(logging.WARNING)
        used = address or mlflow.get_tracking_uri()
        with _alone(used):
            client = mlflow.MlflowClient(tracking_uri=used)
            yield Service(client=client, experiment_id=_experiment(client, experiment))
    except M3IError:
        raise
    except Exception as error:
        words = without_credentials(f"{type(error).__name__}: {error}")
        raise StageError(f"MLflow: {words}") from None  # the cause may show the address


def _alone(address: str) -> Any:
    """A lock beside an SQLite file: it has one writer, and two processes creating its tables at once would fail."""
    if scheme_of(address) != "sqlite":
        return nullcontext()
    from filelock import FileLock

    path = Path(unquote(address.partition(":///")[2]))
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock", timeout=600)


def _experiment(client: MlflowClient, name: str) -> str:
    """Id of the experiment with that name; created if there is none, by this process or another."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise StageError(
            f"the experiment '{name}' was deleted in MLflow; restore it, or set tracker.ALIAS.experiment=..."
        )
    return str(found.experiment_id)


@dataclass(frozen=True, kw_only=True)
class Service:
    """One experiment in one MLflow."""

    client: MlflowClient
    experiment_id: str

    def begin(self, facts: Facts) -> str:
        """Id of the run with this identity; created if there is none."""
        found = self.client.search_runs([self.experiment_id], f"tags.`{IDENTITY}` = '{facts.identity}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {IDENTITY: facts.identity}
        run = self.client.create_run(
            self.experiment_id, start_time=facts.created_ms, tags=tags, run_name=text(facts.name, 250)
        )
        return str(run.info.run_id)

    def is_finished(self, run_id: str) -> bool:
        """Whether the run was logged completely before."""
        return bool(self.client.get_run(run_id).info.status == FINISHED)

    @contextmanager
    def marking(self, run_id: str) -> Iterator[None]:
        """Marks the run as finished at the end, or as failed if logging failed: a later attempt completes it."""
        try:
            yield
        except Exception:
            self.client.set_terminated(run_id, "FAILED")
            raise
        if not self.is_finished(run_id):
            self.client.set_terminated(run_id, FINISHED)

    def fill(self, run_id: str, facts: Facts) -> None:
        """Logs parameters, tags and metrics, in as many requests as MLflow's limits require."""
        from mlflow.entities import Metric as Point
        from mlflow.entities import Param, RunTag
        from mlflow.utils.validation import (
            MAX_METRICS_PER_BATCH,
            MAX_PARAM_VAL_LENGTH,
            MAX_PARAMS_TAGS_PER_BATCH,
            MAX_TAG_VAL_LENGTH,
        )

        params = [Param(key(name), text(value, MAX_PARAM_VAL_LENGTH)) for name, value in facts.params.items()]
        tags = [RunTag(key(name), text(value, MAX_TAG_VAL_LENGTH)) for name, value in facts.tags.items()]
        points = [Point(key(m.name), m.value, facts.created_ms, m.step) for m in _once(facts.metrics)]
        for part in _parts(params, MAX_PARAMS_TAGS_PER_BATCH):
            self.client.log_batch(run_id, params=part)
        for some in _parts(tags, MAX_PARAMS_TAGS_PER_BATCH):
            self.client.log_batch(run_id, tags=some)
        for block in _parts(points, MAX_METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=block)

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Sets tags on a run that may be finished."""
        for name, value in tags.items():
            self.client.set_tag(run_id, name, text(value, 250))

    def upload(self, run_id: str, files: Sequence[Path]) -> None:
        """Uploads files into the run's artifact folder."""
        for file in files:
            self.client.log_artifact(run_id, str(file))


def _parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _once(metrics: Sequence[Metric]) -> list[Metric]:
    """One value per name and step: the last."""
    return list({(m.name, m.step): m for m in metrics}.values())
