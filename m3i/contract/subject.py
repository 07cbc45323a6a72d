"""One component under test: its registry entry, its case, and how the checks create and name it."""

from __future__ import annotations

import dataclasses
import typing
from enum import Enum
from typing import Any, NoReturn

from m3i.component import Component
from m3i.config.registry import PANELS, Entry
from m3i.contract.case import Case
from m3i.errors import ConfigError, M3IError

Option = dataclasses.Field[Any]


class ContractError(M3IError):
    """A component breaks the contract; the message names component, distribution and option, and says what to do."""


class NotStatedError(ContractError):
    """A check needs a value that the plugin's table of cases does not state."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A component that the checks run on."""

    entry: Entry
    case: Case

    def __str__(self) -> str:
        """`observer/checker`, the key of its row in a table of cases."""
        return f"{self.entry.group}/{self.entry.name}"

    @property
    def options(self) -> list[Option]:
        """The component's options."""
        return list(dataclasses.fields(self.entry.cls))

    @property
    def place(self) -> str:
        """Where its options are set on the command line: `selector`, or `observer.NAME` in a panel."""
        return f"{self.entry.group}.{self.entry.name}" if self.entry.group in PANELS else self.entry.group

    def kind(self, option: str) -> Any:
        """The type of an option."""
        return typing.get_type_hints(self.entry.cls)[option]

    def choices(self, option: str) -> type[Enum] | None:
        """The Enum that an option takes its values from; None for other types."""
        kind = self.kind(option)
        return kind if isinstance(kind, type) and issubclass(kind, Enum) else None

    def make(self, **options: Any) -> Component:
        """The component with its defaults, the values that its case says it needs, and `options`.

        Raises:
            NotStatedError: An option without a default has no value in the case.
        """
        given = {**self.case.needs, **options}
        for option in self.options:
            has_default = (option.default, option.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
            if not has_default and option.name not in given:
                self.unstated(f"state a value of '{option.name}', which has no default, under needs")
        component: Component = self.entry.cls(**given)
        return component

    def second_value(self, option: Option) -> Any:
        """A valid value of an option other than its default.

        Raises:
            NotStatedError: The case states none, and none derived from the type is accepted.
        """
        if option.name in self.case.other:
            return self.case.other[option.name]
        kind, members = self.kind(option.name), self.choices(option.name)
        beside = self.case.together.get(option.name, {})
        default = getattr(self.make(**beside), option.name)
        advice = f"state a second valid value of '{option.name}' under other"
        if kind is bool:
            value: Any = not default
        elif kind is int:
            value = default + 1
        elif kind is float:
            value = default / 2 if default else 0.5
        elif members is not None:
            value = next((member for member in members if member is not default), None)
        else:
            self.unstated(advice)
        try:
            self.make(**{**beside, option.name: value})
        except ConfigError as error:
            self.unstated(f"{advice}: {value!r} is refused ({error})")
        return value

    def fail(self, what: str, *, option: str = "") -> NoReturn:
        """Raises ContractError; `what` says what was expected, what was found, and what to do."""
        raise ContractError(f"{self.who(option)}: {what}")

    def unstated(self, what: str) -> NoReturn:
        """Raises NotStatedError; `what` says which value to state."""
        raise NotStatedError(f"{what} in CASES['{self}']")

    def who(self, option: str = "") -> str:
        """The component, its distribution and the option, to begin a message with."""
        who = f"{self.entry.group} '{self.entry.name}' of distribution '{self.entry.distribution}'"
        return f"{who}, option '{option}'" if option else who
