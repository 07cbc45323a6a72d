"""The plugin manager: which components exist, and who provides each.

`build()` is a factory: it makes a fresh manager from the installed entry points (group `m3i`)
and raises an error, naming the distribution, for what would otherwise go unnoticed: a plugin that
cannot be imported, a misspelled hook, a plugin without hooks, a name registered twice.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import Any

import pluggy

from m3i import hookspecs, interfaces
from m3i.component import Component
from m3i.errors import ConfigError, PluginError, did_you_mean
from m3i.store.source import package_hash

INTERFACES: dict[str, type[Any]] = {
    "target": interfaces.Target,
    "problems": interfaces.ProblemSource,
    "observer": interfaces.Observer,
    "attributor": interfaces.Attributor,
    "selector": interfaces.LayerSelector,
    "trainer": interfaces.Trainer,
    "exporter": interfaces.Exporter,
    "judge": interfaces.Judge,
    "tracker": interfaces.Tracker,
}
"""Config group → interface."""

PANELS = ("observer", "attributor", "judge", "tracker")
"""Groups that hold a mapping alias → component."""

OPTIONAL = ("tracker",)
"""Panels that may be empty."""

HOOKS = {
    "target": "register_targets",
    "problems": "register_problems",
    "observer": "register_observers",
    "attributor": "register_attributors",
    "selector": "register_selectors",
    "trainer": "register_trainers",
    "exporter": "register_exporters",
    "judge": "register_judges",
    "tracker": "register_trackers",
}

FORBIDDEN_IN_NAMES = set("+:,=@/ ")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered component."""

    group: str
    name: str
    cls: type[Any]
    distribution: str
    version: str

    def summary(self) -> str:
        """Returns the first line of the component's docstring."""
        return (inspect.getdoc(self.cls) or "").split("\n", 1)[0]

    def source_hash(self) -> str:
        """Returns a hash of the plugin's source and its imports: an edited component never reuses old results."""
        return package_hash(self.cls.__module__.split(".", 1)[0], plugin_packages())


@dataclasses.dataclass
class Registry:
    """Every component that can be named on the command line."""

    entries: dict[tuple[str, str], Entry] = dataclasses.field(default_factory=dict)
    presets: dict[str, str] = dataclasses.field(default_factory=dict)
    """Search path (`pkg://...`) → distribution."""

    def add(self, group: str, name: str, cls: type[Any], distribution: str, version: str) -> None:
        """Registers one component. Raises PluginError naming the distribution."""
        who = f"plugin distribution '{distribution}'"
        if not name or FORBIDDEN_IN_NAMES & set(name):
            raise PluginError(f"{who}: {group} name {name!r} is empty or contains one of '+:,=@/ '")
        taken = self.entries.get((group, name))
        if taken is not None:
            raise PluginError(
                f"{group} '{name}' is registered twice: by '{taken.distribution}' ({taken.cls.__module__}) and by "
                f"'{distribution}' ({cls.__module__}); uninstall one of them or rename it"
            )
        is_component = isinstance(cls, type) and issubclass(cls, Component) and "__dataclass_fields__" in vars(cls)
        if not is_component:  # without its own @dataclass, a class's annotations would not become options
            raise PluginError(f"{who}: {group} '{name}' must be a dataclass derived from m3i.Component")
        lacking = sorted(m for m in _methods(INTERFACES[group]) if not callable(getattr(cls, m, None)))
        if lacking:
            raise PluginError(f"{who}: {group} '{name}' ({cls.__qualname__}) lacks {', '.join(lacking)}()")
        self.entries[group, name] = Entry(group, name, cls, distribution, version)

    def names(self, group: str) -> list[str]:
        """Returns the registered names of one group, sorted."""
        return sorted(name for g, name in self.entries if g == group)

    def find(self, group: str, name: str) -> Entry:
        """Returns the entry. Raises ConfigError with a hint, and a list of what is available and who provides it."""
        entry = self.entries.get((group, name))
        if entry is None:
            there = [f"{n} ({self.entries[group, n].distribution})" for n in self.names(group)]
            raise ConfigError(
                f"{group} '{name}' is not installed{did_you_mean(name, self.names(group))} "
                f"Available: {', '.join(there)}. See 'm3i plugins'."
            )
        return entry

    def entry_of(self, group: str, component: object) -> Entry:
        """Returns the entry that a configured component was made from."""
        for entry in self.entries.values():
            if entry.group == group and entry.cls is type(component):
                return entry
        raise ConfigError(f"a {type(component).__qualname__} is used as {group}, but no plugin registered it")


def build(modules: Iterable[tuple[ModuleType, str, str]] | None = None) -> Registry:
    """Returns a registry of the installed plugins.

    Args:
        modules: (module, distribution, version) of each plugin, instead of the installed entry points.

    Raises:
        PluginError: A plugin cannot be imported, misspells a hook, has none, or uses a name that is already taken.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    registry = Registry()
    for module, distribution, version in modules if modules is not None else _installed():
        before = len(manager.get_plugins())
        manager.register(module)
        if not manager.get_hookcallers(module) and len(manager.get_plugins()) > before:
            raise PluginError(
                f"plugin '{module.__name__}' of distribution '{distribution}' implements no hook; mark its functions "
                f"with @m3i.hookimpl (hooks: {', '.join([*HOOKS.values(), 'register_presets'])})"
            )
        _check_spelling(manager, module, distribution)
        for group, hook in HOOKS.items():
            function = getattr(module, hook, None)
            if function is not None and _is_hookimpl(function):

                def register(
                    name: str, cls: type[Any], g: str = group, d: str = distribution, v: str = version
                ) -> None:
                    registry.add(g, name, cls, d, v)

                _call(function, register, module, distribution)
        presets = getattr(module, "register_presets", None)
        if presets is not None and _is_hookimpl(presets):
            _call(presets, lambda path, d=distribution: registry.presets.update({path: d}), module, distribution)
    return registry


@cache
def plugin_packages() -> frozenset[str]:
    """Returns the top-level packages named by the installed entry points."""
    points = importlib.metadata.entry_points(group=hookspecs.PROJECT)
    return frozenset(point.value.split(":")[0].split(".")[0] for point in points)


@cache
def installed() -> Registry:
    """Returns the registry of the installed plugins, built once per process."""
    return build()


def _installed() -> Iterable[tuple[ModuleType, str, str]]:
    points = sorted(importlib.metadata.entry_points(group=hookspecs.PROJECT), key=lambda p: (p.name, p.value))
    for point in points:
        distribution = point.dist.name if point.dist else "unknown"
        version = point.dist.version if point.dist else "0"
        try:
            module = point.load()
        except Exception as error:  # a plugin is foreign code: its import can raise anything
            raise PluginError(
                f"plugin '{point.name}' ({point.value}) of distribution '{distribution}' {version} cannot be imported: "
                f"{type(error).__name__}: {error}; fix it or uninstall '{distribution}'"
            ) from error
        if not isinstance(module, ModuleType):
            raise PluginError(f"entry point '{point.name}' of distribution '{distribution}' must name a module")
        yield module, distribution, version


def _call(function: Any, register: Any, module: ModuleType, distribution: str) -> None:
    try:
        function(register)
    except PluginError:
        raise
    except Exception as error:  # foreign code, see above
        raise PluginError(
            f"{module.__name__}.{function.__name__} of distribution '{distribution}' failed: "
            f"{type(error).__name__}: {error}"
        ) from error


def _is_hookimpl(function: Any) -> bool:
    return getattr(function, f"{hookspecs.PROJECT}_impl", None) is not None


def _check_spelling(manager: pluggy.PluginManager, module: ModuleType, distribution: str) -> None:
    known = [*HOOKS.values(), "register_presets"]
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        for name, value in vars(module).items():
            if _is_hookimpl(value) and name not in known:
                raise PluginError(
                    f"plugin '{module.__name__}' of distribution '{distribution}' implements the unknown hook "
                    f"'{name}'{did_you_mean(name, known)} Hooks: {', '.join(known)}"
                ) from error
        raise PluginError(f"plugin '{module.__name__}' of distribution '{distribution}': {error}") from error


def _methods(protocol: type[Any]) -> list[str]:
    return [n for n, v in vars(protocol).items() if inspect.isfunction(v) and not n.startswith("_")]
