"""`m3i options`: lists the options of one component."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from m3i.errors import M3IError


def options_command(arguments: list[str]) -> None:
    """m3i options GROUP NAME: lists the options of one component, with defaults and meaning."""
    from m3i.component import field_docs
    from m3i.config.registry import INTERFACES, PANELS, installed

    words = arguments[0].split("=", 1) if len(arguments) == 1 else arguments  # problems=jsonl, like an override
    if len(words) != 2 or words[0] not in INTERFACES:
        raise M3IError(f"usage: m3i options GROUP NAME, with GROUP one of {', '.join(INTERFACES)}")
    group, name = words
    entry = installed().find(group, name)
    print(f"{group}={name}   {entry.summary()}\nfrom {entry.distribution} {entry.version}, {entry.cls.__module__}\n")
    docs = field_docs(entry.cls)
    prefix = f"{group}.{name}" if group in PANELS else group
    for field in dataclasses.fields(entry.cls):
        print(f"{prefix}.{field.name} = {default_text(field)}")
        print(textwrap.indent(docs.get(field.name, ""), "    "))


def default_text(field: Any) -> str:
    """Returns a field's default as it would be written on the command line."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "(required)"
    return str(getattr(value, "value", value))
