"""reasoning-gym's datasets by name, with errors that say what to do."""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache
from typing import Any

from m3i import ConfigError, did_you_mean

INSTALL = "pip install 'm3i[smollm2]'"

OURS = ("seed", "size")
"""Fields of every task's configuration that the source sets itself."""

SIZE = 1 << 30
"""reasoning-gym's datasets are in fact endless (item i is made from seed + i), but a size is required."""


def known_tasks() -> dict[str, tuple[Any, Any]]:
    """Task → (dataset class, configuration class). Raises ConfigError if the package is not installed."""
    try:
        import reasoning_gym  # noqa: F401  (registers the datasets)
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ConfigError(f"problems=reasoning_gym needs the package reasoning-gym ({error}); run: {INSTALL}") from None
    return dict(DATASETS)


def open_task(task: str, config: dict[str, Any], seed: int) -> Any:
    """Returns the dataset of a task; equal arguments give the same object.

    Raises:
        ConfigError: No such task, an option that it does not have, or a value that it refuses.
    """
    return _open(task, json.dumps(config, sort_keys=True), seed)


@lru_cache(maxsize=64)
def _open(task: str, config_json: str, seed: int) -> Any:
    tasks = known_tasks()
    if task not in tasks:
        names = ", ".join(sorted(tasks))
        raise ConfigError(f"reasoning_gym has no task {task!r}{did_you_mean(task, tasks)} Known: {names}")
    dataset_class, config_class = tasks[task]
    given = json.loads(config_json)
    fields = {f.name for f in dataclasses.fields(config_class)} - set(OURS)
    for key in given:
        if key not in fields:
            hint = did_you_mean(key, fields)
            raise ConfigError(
                f"reasoning_gym task {task!r} has no option {key!r}{hint} Options: {', '.join(sorted(fields))}"
            )
    try:
        config = config_class(**given, seed=seed, size=SIZE)
        config.validate()
        dataset = dataset_class(config=config)
        dataset[0]
    except Exception as error:  # reasoning-gym refuses values by assertions, and some only when it draws
        reason = str(error) or type(error).__name__
        raise ConfigError(f"reasoning_gym task {task!r} refuses its configuration {given}: {reason}") from None
    return dataset
