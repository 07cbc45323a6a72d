"""The contract for chosen components: a list of checks that can be called, printed or passed to pytest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from m3i.config.registry import Entry, installed
from m3i.contract import component_checks, kind_checks, option_checks
from m3i.contract.case import Case
from m3i.contract.subject import ContractError, Option, Subject
from m3i.contract.tables import find_cases
from m3i.errors import M3IError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Check:
    """One requirement for one component, or for one of its options."""

    subject: Subject
    title: str
    """The requirement in words, such as `refuses bad values`."""
    requirement: str
    """The requirement in a sentence."""
    work: Callable[[], None]
    option: str = ""

    def __str__(self) -> str:
        """The test id: `selector/acme.k refuses bad values`."""
        place = f"{self.subject}.{self.option}" if self.option else str(self.subject)
        return f"{place} {self.title}"

    def __call__(self) -> None:
        """Runs the check.

        Raises:
            ContractError: The requirement is not met, or the component raises another exception; one line.
            NotStatedError: The table of cases lacks a value that the check needs.
        """
        try:
            self.work()
        except ContractError:
            raise
        except Exception as error:  # foreign code: anything may come out of it
            raise ContractError(
                f"{self.subject.who(self.option)}: {type(error).__name__}: {error}; expected: {self.requirement}"
            ) from error


def checks(entries: Iterable[Entry], cases: Mapping[str, Case]) -> list[Check]:
    """Every check for these components.

    Args:
        entries: The components.
        cases: `GROUP/NAME` → what the component needs, refuses and accepts; a missing row counts as an empty case.
    """
    made: list[Check] = []
    for entry in entries:
        subject = Subject(entry=entry, case=cases.get(f"{entry.group}/{entry.name}", Case()))
        for function in (*component_checks.CHECKS, *kind_checks.CHECKS.get(entry.group, ())):
            made.append(_check(subject, function, lambda f=function, s=subject: f(s)))  # type: ignore[misc]
        for of_option in option_checks.CHECKS:
            for option in subject.options:
                work = _of_option(of_option, subject, option)
                made.append(_check(subject, of_option, work, option.name))
    return made


def checks_of(name: str) -> list[Check]:
    """Every check for the components of an installed plugin, with the plugin's own table of cases.

    Args:
        name: A distribution (`acme-m3i`), an import package (`acme_m3i`) or one component (`selector/acme`).

    Raises:
        M3IError: Nothing by that name is installed, or its table of cases is unusable.
    """
    entries = find_entries(name)
    return checks(entries, find_cases(entries))


def find_entries(name: str) -> list[Entry]:
    """The installed components that a distribution, an import package or `GROUP/NAME` stands for. Raises M3IError."""
    registry = installed()
    group, slash, component = name.replace("=", "/", 1).partition("/")
    if slash:
        groups = sorted({g for g, _ in registry.entries})
        if group not in groups:
            raise M3IError(
                f"there is no component group '{group}'{did_you_mean(group, groups)} Groups: {', '.join(groups)}"
            )
        return [registry.find(group, component)]
    entries = [entry for _, entry in sorted(registry.entries.items())]
    of_distribution = [entry for entry in entries if canonical(entry.distribution) == canonical(name)]
    found = of_distribution or [entry for entry in entries if _package(entry) == name]
    if not found:
        known = {word for entry in entries for word in (entry.distribution, _package(entry))}
        there = ", ".join(sorted({entry.distribution for entry in entries}))
        raise M3IError(
            f"no installed plugin '{name}' provides a component{did_you_mean(name, known)} Install it with an "
            f"entry point in the group m3i (pip install -e .). Installed: {there}"
        )
    return found


def canonical(distribution: str) -> str:
    """A distribution's name in the form that pip compares. Source: packaging.python.org, name normalization."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _check(subject: Subject, function: Callable[..., None], work: Callable[[], None], option: str = "") -> Check:
    requirement = " ".join((function.__doc__ or "").split())
    title = function.__name__.replace("_", " ")
    return Check(subject=subject, title=title, requirement=requirement, work=work, option=option)


def _of_option(check: Callable[[Subject, Option], None], subject: Subject, option: Option) -> Callable[[], None]:
    return lambda: check(subject, option)


def _package(entry: Entry) -> str:
    return entry.cls.__module__.partition(".")[0]
