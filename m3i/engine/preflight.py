"""What can be known before anything expensive is refused here, in one line."""

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
    """Lets every component refuse the target, and checks what can be checked, before anything expensive."""
    refuse_infinite(experiment.config)
    for component in experiment.components.values():
        component.check(info)
    refuse_draw(experiment.arm, info)
    read = getattr(experiment.selector, "attributor", "") if reads_scores(experiment) else ""
    if read and read not in experiment.attributors:
        panel = list(experiment.attributors)
        raise ConfigError(
            f"selector.attributor = '{read}': no such attributor is in the panel{did_you_mean(read, panel)} "
            f"There is {', '.join(panel)}; add it with attributor={'+'.join([*panel, read])}"
        )
    settings = experiment.settings.ledger
    mode = settings.mode
    if mode is LedgerMode.estimate:
        raise ConfigError(
            "ledger.mode=estimate: runs nothing; see m3i.engine.cost.estimate_cost, or 'm3i cost' on the command line"
        )
    if mode is not LedgerMode.replay:
        for component in experiment.components.values():
            if isinstance(component, RemoteModel):
                component.require_key()
                required_price(component.provider_name, component.model, settings)
    check_trace_file(experiment)


def refuse_draw(arm: Arm, info: TargetInfo) -> None:
    """Raises ConfigError for a draw that no set of the target's layers can have, whatever the selector takes.

    How many sets there are is known once the layers are selected (m3i.config.arms.select_for); no choice of k of n
    layers has more sets than n choose n/2.
    """
    most = math.comb(info.n_layers, info.n_layers // 2)
    if arm.draw is not None and arm.draw >= most:
        raise ConfigError(
            f"arm = {arm.name}: {info.name} has {info.n_layers} layers, of which no more than {most} sets of one size "
            f"can be drawn, numbered from 0"
        )


def check_trace_file(experiment: Experiment) -> None:
    """Raises ConfigError where the user's own traces are not there."""
    file = experiment.settings.trace.file
    if file is not None and not Path(file).is_file():
        raise ConfigError(f"trace.file = {file!r}: there is no such file")


def refuse_infinite(value: Any, path: str = "") -> None:
    """Raises ConfigError for an option that is infinite or no number: no result.json could hold it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        refuse_infinite(item, f"{path}.{name}" if path else str(name))
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path} = {value}: expected a finite number")


def read_sources(experiment: Experiment, registry: Registry) -> None:
    """Hashes every source that will be in a key now, while it is what Python has loaded or will load."""
    core_files()
    for place, component in experiment.components.items():
        registry.entry_of(place.partition(".")[0], component).source_hash()


def reads_scores(experiment: Experiment) -> bool:
    """Whether the selector has the option `attributor`, the core's word for the score that a selector reads."""
    return any(f.name == "attributor" for f in dataclasses.fields(cast(Any, experiment.selector)))
