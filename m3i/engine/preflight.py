"""Checks before anything expensive runs: each problem that can be found in advance is one line here."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

from m3i.artifacts import TargetInfo
from m3i.config.arms import Arm
from m3i.config.experiment import Experiment
from m3i.config.registry import Registry
from m3i.config.settings import LedgerMode
from m3i.errors import ConfigError, did_you_mean
from m3i.ledger.context import required_price
from m3i.llm.remote import RemoteModel
from m3i.store.source import core_files


def preflight(experiment: Experiment, info: TargetInfo) -> None:
    """Lets every component reject the target, and checks everything else that can be checked in advance."""
    refuse_infinite(experiment.config)
    for component in experiment.components.values():
        component.check(info)
    refuse_draw(experiment.arm, info)
    read = getattr(experiment.selector, "attributor", "") if reads_scores(experiment) else ""
    if read and read not in experiment.attributors:
        panel = list(experiment.attributors)
        raise ConfigError(
            f"selector.attributor = '{read}': no such attributor is in the panel{did_you_mean(read, panel)} "
            f"The panel is {', '.join(panel)}; add it with attributor={'+'.join([*panel, read])}"
        )
    settings = experiment.settings.ledger
    mode = settings.mode
    if mode is LedgerMode.estimate:
        raise ConfigError(
            "ledger.mode=estimate runs nothing; use m3i.engine.cost.estimate_cost, or 'm3i cost' on the command line"
        )
    if mode is not LedgerMode.replay:
        for component in experiment.components.values():
            if isinstance(component, RemoteModel):
                component.require_key()
                required_price(component.provider_name, component.model, settings)
    check_trace_file(experiment)


def refuse_draw(arm: Arm, info: TargetInfo) -> None:
    """Raises ConfigError for a draw whose number is too high, whichever layers the selector takes.

    The exact number of sets is known only once layers are selected (m3i.config.arms.select_for), but n layers never
    have more than n choose n/2 sets of one size.
    """
    most = math.comb(info.n_layers, info.n_layers // 2)
    if arm.draw is not None and arm.draw >= most:
        raise ConfigError(
            f"arm = {arm.name}: {info.name} has {info.n_layers} layers, which have at most {most} sets of one size, "
            f"numbered from 0"
        )


def check_trace_file(experiment: Experiment) -> None:
    """Raises ConfigError if the file of the user's own traces does not exist."""
    file = experiment.settings.trace.file
    if file is not None and not Path(file).is_file():
        raise ConfigError(f"trace.file = {file!r}: there is no such file")


def refuse_infinite(value: Any, path: str = "") -> None:
    """Raises ConfigError for an option that is infinite or NaN: no result.json could hold it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        refuse_infinite(item, f"{path}.{name}" if path else str(name))
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path} = {value}: expected a finite number")


def read_sources(experiment: Experiment, registry: Registry) -> None:
    """Hashes every source that enters a key now, so that the hash matches the code that Python loads."""
    core_files()
    for place, component in experiment.components.items():
        registry.entry_of(place.partition(".")[0], component).source_hash()


def reads_scores(experiment: Experiment) -> bool:
    """Returns whether the selector has the option `attributor`, which names the scores that it reads."""
    return any(f.name == "attributor" for f in dataclasses.fields(cast(Any, experiment.selector)))
