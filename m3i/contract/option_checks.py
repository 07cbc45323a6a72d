"""Checks for every option of a component. Each returns, or raises ContractError."""

from __future__ import annotations

import json
import types
import typing
from enum import Enum
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from m3i.component import RESULT_FREE, plain
from m3i.config.experiment import Experiment
from m3i.config.explain import explain
from m3i.config.registry import PANELS
from m3i.config.source import RegistrySource
from m3i.contract.subject import Option, Subject
from m3i.errors import ConfigError, InputError
from m3i.stages.context import described
from m3i.store.store import Recipe

WRONG: dict[type[Any], Any] = {bool: "perhaps", int: "many", float: "much", str: ["a", "b"]}
"""Type → a value of another type."""


def enters_the_key_unless_result_free(subject: Subject, option: Option) -> None:
    """Changing an option changes the store's key, unless the option is declared `result_free`."""
    case, name = subject.case, option.name
    if name in case.derived.split():
        if option.default == getattr(subject.make(), name):
            subject.fail("the case says that it is derived, but it stays at its default", option=name)
        return
    if name in case.fixed.split():
        if not case.bad.get(name):
            subject.fail("the case says that it is fixed; state under bad what must be refused", option=name)
        return
    value, beside = subject.second_value(option), case.together.get(name, {})
    before, after = subject.make(**beside), subject.make(**{**beside, name: value})
    if getattr(before, name) == value:
        subject.fail(f"the second value {value!r} is the default; state another under other", option=name)
    keys = {Recipe(stage="stage", component=described(subject.entry, component)).key for component in (before, after)}
    if option.metadata.get(RESULT_FREE) and len(keys) == 2:
        subject.fail("it is declared result-free but changes the store's key", option=name)
    if not option.metadata.get(RESULT_FREE) and len(keys) == 1:
        subject.fail(
            f"{value!r} gives the same key as {getattr(before, name)!r}, so old results would be reused; __post_init__ "
            "must keep the value",
            option=name,
        )


def refuses_bad_values(subject: Subject, option: Option) -> None:
    """Every bad value is refused on creation with a ConfigError or InputError that names the option."""
    case, name = subject.case, option.name
    closed = subject.kind(name) is bool or subject.choices(name) is not None
    if name in case.free.split() or (closed and name not in case.bad):
        return
    if name not in case.bad:
        subject.unstated(f"state values that '{name}' must refuse under bad, or list it under free")
    for value in case.bad[name]:
        try:
            subject.make(**{name: value})
        except (ConfigError, InputError) as error:
            if name not in str(error):
                subject.fail(f"{value!r} is refused without naming the option: {error}", option=name)
        except Exception as error:  # foreign code: anything may come out of it
            subject.fail(
                f"{value!r} raises {type(error).__name__}: {error}; refuse it in __post_init__ with m3i.require",
                option=name,
            )
        else:
            subject.fail(f"{value!r} is accepted; refuse it in __post_init__ with m3i.require", option=name)


def refuses_a_wrong_type(subject: Subject, option: Option) -> None:
    """A value of the wrong type is refused, when Hydra merges the override, in one line that names the option."""
    entry, name = subject.entry, option.name
    try:
        config = RegistrySource("m3i", "m3i://components").load_config(f"{entry.group}/{entry.name}").config
    except OmegaConfBaseException as error:
        subject.fail(f"Hydra cannot read its options ({explain(error)}); use the types in docs/hooks.md")
    kind = subject.kind(name)
    if kind is Any or typing.get_origin(kind) is typing.Union or isinstance(kind, types.UnionType):
        kind = next((k for k in typing.get_args(kind) if k is not type(None)), None)
        if kind is None:  # Any: OmegaConf cannot know; `refuses_bad_values` tests the component's own check
            if name not in subject.case.bad:
                subject.unstated(f"state values that '{name}', which is Any, must refuse under bad")
            return
    origin = typing.get_origin(kind) or kind
    wrong = "nonsense" if issubclass(origin, Enum) else WRONG.get(origin, 3)
    try:
        OmegaConf.update(config, f"{entry.name}.{name}" if entry.group in PANELS else name, wrong, merge=True)
    except OmegaConfBaseException as error:
        line = explain(error)
        if name not in line or "\n" in line:
            subject.fail(f"{wrong!r} must be refused in one line that names it; the error is: {line}", option=name)
    else:
        subject.fail(f"{wrong!r} is accepted; annotate the field with its type", option=name)


def takes_its_choices_as_documented(subject: Subject, option: Option) -> None:
    """Every value of an Enum works on the command line: OmegaConf reads names, while the docs show values."""
    members, entry = subject.choices(option.name), subject.entry
    for member in members or ():
        if member.value in subject.case.bad.get(option.name, []):
            continue
        subject.make()  # reports any option without a default that lacks a value
        needs = [f"{subject.place}.{name}={hydra(plain(value))}" for name, value in subject.case.needs.items()]
        word = f"{subject.place}.{option.name}={member.value}"
        try:
            experiment = Experiment.compose(f"{entry.group}={entry.name}", *needs, word)
        except ConfigError as error:
            subject.fail(f"{word} is refused ({error}); give the member the name of its value", option=option.name)
        in_panel = entry.group in PANELS
        made = getattr(experiment, f"{entry.group}s")[entry.name] if in_panel else getattr(experiment, entry.group)
        if getattr(made, option.name) is not member:
            subject.fail(
                f"{word} arrives as {getattr(made, option.name)!r}; __post_init__ must keep the value",
                option=option.name,
            )


def hydra(value: Any) -> str:
    """A JSON value in the syntax of Hydra's overrides."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{hydra(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(hydra, value)) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"
    return json.dumps(value)


CHECKS = (
    enters_the_key_unless_result_free,
    refuses_bad_values,
    refuses_a_wrong_type,
    takes_its_choices_as_documented,
)
