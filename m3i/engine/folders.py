"""Where a run's files lie: its own folder, the store, the ledger."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import platformdirs

from m3i.config.experiment import Experiment


def new_run_dir() -> Path:
    """A new folder under `outputs/`, named by the time; another run of the same second gets one of its own."""
    day = Path("outputs") / time.strftime("%Y-%m-%d")
    second = time.strftime("%H-%M-%S")
    for folder in (day / (second if n == 0 else f"{second}-{n}") for n in itertools.count()):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("count() does not end")


def ledger_path(experiment: Experiment) -> Path:
    """The ledger's file when `ledger.path` is unset: in the store."""
    return store_root(experiment) / "ledger.sqlite"


def store_root(experiment: Experiment) -> Path:
    """Folder of the store: `store.root`, else the user's cache folder."""
    root = experiment.settings.store.root
    return Path(root) if root else Path(platformdirs.user_cache_dir("m3i"))
