"""Where a run's files are: its own folder, the store, the ledger."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import platformdirs

from m3i.config.experiment import Experiment


def new_run_dir() -> Path:
    """Creates and returns a folder under `outputs/`, named after the time; runs in the same second get a suffix."""
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
    """Returns the ledger's file for an unset `ledger.path`: in the store."""
    return store_root(experiment) / "ledger.sqlite"


def store_root(experiment: Experiment) -> Path:
    """Returns the folder of the store: `store.root`, or else the user's cache folder."""
    root = experiment.settings.store.root
    return Path(root) if root else Path(platformdirs.user_cache_dir("m3i"))
