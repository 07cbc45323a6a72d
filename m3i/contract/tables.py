"""Finds a plugin's table of cases.

A package defines it as `CASES` in its module `contract_cases`, which only the contract imports; a single-module plugin
defines `CASES` in that module. Its keys are `GROUP/NAME`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from m3i.config.registry import Entry, installed
from m3i.contract.case import Case
from m3i.contract.subject import ContractError
from m3i.errors import did_you_mean

MODULE = "contract_cases"


def find_cases(entries: Iterable[Entry]) -> dict[str, Case]:
    """`GROUP/NAME` → case, from the tables of these components' plugins.

    Raises:
        ContractError: A table cannot be imported, is not a table of cases, or has a row for a component that is not
            installed.
    """
    places = {place: entry for entry in entries if (place := table_of(entry))}
    known = [f"{group}/{name}" for group, name in installed().entries]
    cases: dict[str, Case] = {}
    for place, entry in places.items():
        who = f"table of cases {place} of distribution '{entry.distribution}'"
        try:
            table: Any = importlib.import_module(place).CASES
        except Exception as error:  # foreign code: anything may come out of its import
            raise ContractError(
                f"{who} cannot be read: {type(error).__name__}: {error}; it must define CASES"
            ) from error
        if not isinstance(table, Mapping) or not all(isinstance(case, Case) for case in table.values()):
            raise ContractError(f"{who}: CASES must be a dict from 'GROUP/NAME' to m3i.contract.Case")
        for row in table:
            if row not in known:
                raise ContractError(f"{who} has a row '{row}', which is not installed{did_you_mean(str(row), known)}")
        cases |= table
    return cases


def table_of(entry: Entry) -> str:
    """The module with the table for a component, the innermost one around its class; empty if there is none."""
    module = entry.cls.__module__
    if "." not in module and "CASES" in vars(sys.modules[module]):
        return module
    package = module
    while package:
        is_package = hasattr(sys.modules.get(package), "__path__")
        if is_package and importlib.util.find_spec(f"{package}.{MODULE}") is not None:
            return f"{package}.{MODULE}"
        package = package.rpartition(".")[0]
    return ""
