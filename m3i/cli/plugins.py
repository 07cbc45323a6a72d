"""`m3i plugins`: lists the installed components and who provides them."""

from __future__ import annotations

from m3i.errors import M3IError, did_you_mean


def plugins_command(arguments: list[str]) -> None:
    """m3i plugins [GROUP]: lists the installed components and who provides them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from m3i.config.registry import INTERFACES, installed

    groups = arguments or list(INTERFACES)
    unknown = [g for g in groups if g not in INTERFACES]
    if unknown:
        raise M3IError(
            f"there is no component group '{unknown[0]}'{did_you_mean(unknown[0], INTERFACES)} "
            f"Groups: {', '.join(INTERFACES)}"
        )
    registry = installed()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("group", "name", "what it does", "from"):
        table.add_column(column, overflow="fold")
    for group in groups:
        for name in registry.names(group):
            entry = registry.find(group, name)
            row = (group, name, entry.summary(), f"{entry.distribution} {entry.version}")
            table.add_row(*map(Text, row))  # brackets in a docstring are not rich markup
    Console(highlight=False).print(table)
    print("\nOptions of a component: m3i options GROUP NAME   Use: python -m m3i GROUP=NAME GROUP.OPTION=VALUE")
