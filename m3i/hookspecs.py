"""The hooks a plugin may implement. Each is called once, when the registry is built.

A plugin is a module (or package) named by an entry point of the group `m3i`. It marks its
functions with `@m3i.hookimpl` and imports nothing heavy: components import torch,
transformers or a provider's SDK inside the method that needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy

PROJECT = "m3i"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Register = Callable[[str, type[Any]], None]
"""`register(name, cls)`: `name` is what selects the component, `cls` a dataclass that is its own config."""


@hookspec
def register_targets(register: Register) -> None:
    """Offer models to experiment on: `register("tiny", TinyTarget)`."""


@hookspec
def register_problems(register: Register) -> None:
    """Offer sources of verifiable problems: `register("arithmetic", ArithmeticProblems)`."""


@hookspec
def register_observers(register: Register) -> None:
    """Offer auditors of reasoning traces: `register("checker", Checker)`."""


@hookspec
def register_attributors(register: Register) -> None:
    """Offer methods that turn findings into a score for each layer."""


@hookspec
def register_selectors(register: Register) -> None:
    """Offer rules that select the layers to train."""


@hookspec
def register_trainers(register: Register) -> None:
    """Offer methods that train only the selected layers."""


@hookspec
def register_exporters(register: Register) -> None:
    """Offer ways to bring the tuned model to llama.cpp, each with a certificate."""


@hookspec
def register_judges(register: Register) -> None:
    """Offer judges that compare two answers to one problem."""


@hookspec
def register_trackers(register: Register) -> None:
    """Offer experiment trackers, which receive finished results: `register("mlflow", MLflow)`."""


@hookspec
def register_presets(register: Callable[[str], None]) -> None:
    """Offer a folder of Hydra YAML (`experiment/*.yaml`, `sweep/*.yaml`): `register("pkg://acme_m3i.conf")`."""
