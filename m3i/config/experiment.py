"""The Python API: the same experiment as on the command line, from a script or a notebook.

from m3i import Experiment, run

experiment = Experiment.compose("selector=random", "selector.seed=3")
finished = run(experiment)
print(finished.result["verdict"]["sentence"], finished.report)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from m3i.component import Component
from m3i.config.arms import Arm, parse_arm
from m3i.config.registry import INTERFACES, OPTIONAL, PANELS
from m3i.config.settings import Settings
from m3i.errors import ConfigError
from m3i.interfaces import (
    Attributor,
    Exporter,
    Judge,
    LayerSelector,
    Observer,
    ProblemSource,
    Target,
    Tracker,
    Trainer,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A checked configuration: every component is built and every option valid."""

    target: Target
    problems: ProblemSource
    observers: Mapping[str, Observer]
    attributors: Mapping[str, Attributor]
    selector: LayerSelector
    trainer: Trainer
    exporter: Exporter
    judges: Mapping[str, Judge]
    trackers: Mapping[str, Tracker] = dataclasses.field(default_factory=dict)
    arm: Arm
    settings: Settings
    config: dict[str, Any]
    """The composed config as plain values, for the record."""
    overrides: tuple[str, ...] = ()
    """The overrides given on the command line or to `compose`."""

    @classmethod
    def compose(cls, *overrides: str) -> Experiment:
        """Returns an experiment from the same overrides that the command line takes.

        Raises:
            ConfigError: A component or an option is unknown, or a value is out of range.
        """
        from hydra import compose, initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra
        from hydra.errors import HydraException

        from m3i.config.explain import explain
        from m3i.config.source import conf_dir

        prepare_hydra()
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3", job_name="m3i"):
                config = compose("config", overrides=list(overrides))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(explain(error)) from error
        return cls.from_config(config, overrides)

    @classmethod
    def from_config(cls, config: DictConfig, overrides: tuple[str, ...] | list[str] = ()) -> Experiment:
        """Returns an experiment from a composed config. Raises ConfigError as `compose` does."""
        from m3i.config.explain import explain

        plain = OmegaConf.to_container(config, resolve=False)
        assert isinstance(plain, dict)
        refuse_environment(plain)
        refuse_unknown(config)
        try:
            made: dict[str, Any] = {
                name: OmegaConf.to_object(config[name]) if OmegaConf.is_config(config[name]) else None
                for name in _fields(Settings)
                if name not in ("seed", "draw_seed", "arm")
            }
        except MissingMandatoryValue as error:
            raise ConfigError(f"option '{error.full_key}' has no default; give it as {error.full_key}=...") from error
        except OmegaConfBaseException as error:
            raise ConfigError(explain(error)) from error
        for group in INTERFACES:
            members = list((made[group] or {}).values()) if group in PANELS else [made[group]]
            chosen = bool(members) or group in OPTIONAL
            if not chosen or not all(isinstance(member, Component) for member in members):
                raise ConfigError(f"no {group} is chosen; give {group}=NAME (see 'm3i plugins')")
        return cls(
            target=made["target"],
            problems=made["problems"],
            observers=made["observer"],
            attributors=made["attributor"],
            selector=made["selector"],
            trainer=made["trainer"],
            exporter=made["exporter"],
            judges=made["judge"],
            trackers=made["tracker"] or {},
            arm=parse_arm(str(config.arm), int(config.draw_seed)),
            settings=Settings(**made, arm=str(config.arm), draw_seed=int(config.draw_seed), seed=int(config.seed)),
            config={str(k): v for k, v in plain.items()},
            overrides=tuple(overrides),
        )

    @property
    def components(self) -> dict[str, Component]:
        """Place in the config, such as `trainer` or `observer.checker` → component."""
        panels: dict[str, Mapping[str, Any]] = {
            "observer": self.observers,
            "attributor": self.attributors,
            "judge": self.judges,
            "tracker": self.trackers,
        }
        single: dict[str, Any] = {
            "target": self.target,
            "problems": self.problems,
            "selector": self.selector,
            "trainer": self.trainer,
            "exporter": self.exporter,
        }
        return {**single, **{f"{group}.{a}": c for group, panel in panels.items() for a, c in panel.items()}}

    @property
    def asks_remotely(self) -> bool:
        """Whether any component gets its results through the ledger."""
        return any(component.uses_ledger for component in self.components.values())


def prepare_hydra() -> None:
    """Registers our config sources and the root schema with Hydra."""
    from hydra.core.config_store import ConfigStore

    from m3i.config.source import register_with_hydra, schema_of

    register_with_hydra()
    store = ConfigStore.instance()
    store.store(name="settings", node=schema_of(Settings))
    # `--help` copies this singleton once per group, which takes half a second if launchers have filled it.
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


def refuse_unknown(config: DictConfig, path: str = "") -> None:
    """Raises ConfigError for a key that is no option: `+key=1` and YAML can add one that nothing would read."""
    from m3i.config.explain import unknown_option

    cls = OmegaConf.get_type(config) if path else Settings
    known = _fields(cls) if dataclasses.is_dataclass(cls) else None
    for key in config:
        name = ".".join(filter(None, (path, str(key))))
        if known is not None and key not in known:
            raise ConfigError(unknown_option(name, known))
        if OmegaConf.is_missing(config, key):
            continue
        inner = config._get_node(key)
        if isinstance(inner, DictConfig) and not inner._is_none():
            refuse_unknown(inner, name)


def refuse_environment(value: Any, path: str = "") -> None:
    """Raises ConfigError if a config reads the environment: a secret read that way would end up in every dump."""
    if isinstance(value, dict):
        for name, inner in value.items():
            refuse_environment(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            refuse_environment(inner, f"{path}[{i}]")
    elif isinstance(value, str) and "${oc.env" in value.replace(" ", ""):
        raise ConfigError(
            f"option '{path}' reads the environment; configs are written to disk, so a secret would be too. "
            f"Plugins read their keys from the environment themselves; give other values on the command line."
        )


def _fields(cls: type[Any]) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]
