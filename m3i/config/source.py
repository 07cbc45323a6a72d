"""Lets Hydra compose components straight from the plugin registry: no YAML, no ConfigStore entry, no `_target_`.

The search path holds `m3i://components`, which is served here: `selector/random` is the
structured config of the registered dataclass, and `observer/claude+gpt:litellm` is a panel, a
mapping from alias to component.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

import m3i
from m3i.config.registry import INTERFACES, OPTIONAL, PANELS, Registry, installed
from m3i.errors import ConfigError, PluginError

SCHEME = "m3i"


def conf_dir() -> Path:
    """Returns the folder of our own YAML: inside the package in a wheel, `conf/` next to it in a checkout."""
    package = Path(m3i.__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def parse_panel(group: str, value: str) -> dict[str, str]:
    """Returns `a+alias:b` as {alias: name}. Raises ConfigError for an empty or repeated alias."""
    panel: dict[str, str] = {}
    for part in value.split("+"):
        alias, colon, name = part.partition(":")
        name = name if colon else alias
        if not alias or not name:
            raise ConfigError(f"{group}={value}: expected names joined by '+', such as a+b or mine:a+b")
        if alias in panel:
            raise ConfigError(
                f"{group}={value}: '{alias}' occurs twice; give each its own alias, such as one:{name}+two:{name}"
            )
        panel[alias] = name
    return panel


def schema_of(cls: type[Any]) -> DictConfig:
    """Returns the structured config of a dataclass; its mappings take any key, e.g. `ledger.prices={mine: ...}`."""
    node: DictConfig = OmegaConf.structured(cls)
    _open_mappings(node)
    return node


def _open_mappings(node: DictConfig) -> None:
    if OmegaConf.get_type(node) is dict:
        OmegaConf.set_struct(node, False)
        return
    for key in node:
        inner = node._get_node(key)
        if isinstance(inner, DictConfig) and not inner._is_none() and not inner._is_missing():
            _open_mappings(inner)


class RegistrySource(ConfigSource):
    """Serves components from the plugin registry to Hydra."""

    @staticmethod
    def scheme() -> str:
        """`m3i`, as in `m3i://components`."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Returns the structured config of a component or a panel."""
        group, _, value = config_path.removesuffix(".yaml").partition("/")
        registry = installed()
        node: DictConfig
        if group in PANELS:
            panel = parse_panel(group, value)
            node = OmegaConf.create({a: schema_of(registry.find(group, n).cls) for a, n in panel.items()})
        else:
            node = schema_of(registry.find(group, value).cls)
        return ConfigResult(
            config=node, path=f"{SCHEME}://{self.path}", provider=self.provider, header={"package": group}
        )

    def available(self) -> bool:
        """Returns True; the registry always exists."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Returns whether `config_path` is a component group, or the root that holds them."""
        return config_path.rstrip("/") in ("", *INTERFACES)

    def is_config(self, config_path: str) -> bool:
        """Returns whether `config_path` names a component.

        Any name in a component group counts, so that an unknown one gets the message of
        `Registry.find` (a hint, and who provides what) instead of Hydra's. If a group is null in the
        defaults list, Hydra asks for the name `None`.
        """
        group, slash, value = config_path.removesuffix(".yaml").partition("/")
        if group in OPTIONAL and value == "None":
            return False
        return bool(slash) and group in INTERFACES and bool(value) and "/" not in value

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Returns groups at the root and registered names below, as printed by Hydra's `--help`."""
        path = config_path.rstrip("/")
        if path == "":
            return [] if results_filter == ObjectType.CONFIG else sorted(INTERFACES)
        if path in INTERFACES and results_filter != ObjectType.GROUP:
            return installed().names(path)
        return []


class PresetPath(SearchPathPlugin):
    """Puts the registry, our YAML and the presets of plugins on Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Appends our entries; called by Hydra when it starts."""
        registry = installed()
        check_presets(registry)
        search_path.append("m3i", f"file://{conf_dir()}")
        search_path.append("m3i plugins", f"{SCHEME}://components")
        for path, distribution in registry.presets.items():
            search_path.append(distribution, path)


def check_presets(registry: Registry) -> None:
    """Raises PluginError if two YAML files have the same group and name: Hydra would silently take the first.

    The message names both distributions. A preset path that does not exist is a PluginError too.
    """
    owner = dict.fromkeys(_yaml_names(conf_dir()), "m3i")
    for path, distribution in registry.presets.items():
        if not path.startswith("pkg://"):
            raise PluginError(f"distribution '{distribution}': preset path {path!r} must start with pkg://")
        package, _, rest = path.removeprefix("pkg://").replace("/", ".").partition(".")
        try:
            root: Traversable = files(package)
        except ModuleNotFoundError as error:
            raise PluginError(f"distribution '{distribution}': preset path {path} does not exist") from error
        for part in filter(None, rest.split(".")):
            root = root / part
        if not root.is_dir():
            raise PluginError(f"distribution '{distribution}': preset path {path} does not exist")
        for name in _yaml_names(root):
            if name in owner:
                raise PluginError(
                    f"preset '{name}' comes from '{owner[name]}' and from '{distribution}'; uninstall or rename one of "
                    "them"
                )
            owner[name] = distribution


def _yaml_names(root: Path | Traversable, prefix: str = "") -> Iterable[str]:
    for item in root.iterdir():
        if item.is_dir():
            yield from _yaml_names(item, f"{prefix}{item.name}/")
        elif item.name.endswith(".yaml"):
            yield f"{prefix}{item.name.removesuffix('.yaml')}"


def register_with_hydra() -> None:
    """Registers both classes with Hydra; a second call has no effect."""
    plugins = Plugins.instance()
    for plugin in (RegistrySource, PresetPath):
        plugins.register(plugin)
