"""`m3i new-plugin`: writes a plugin to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path

from m3i.cli.arguments import Parser
from m3i.config.registry import INTERFACES
from m3i.errors import M3IError, did_you_mean

USAGE = f"usage: m3i new-plugin NAME [--kind {'|'.join(INTERFACES)}] [--dir DIR]; without --kind, an observer"


def new_plugin_command(arguments: list[str]) -> None:
    """m3i new-plugin NAME: writes a plugin to begin with: one working component, its options' cases, passing tests."""
    from m3i.contract.new_plugin import EXAMPLES, names_for, render, write

    if arguments in (["-h"], ["--help"]):
        print(USAGE)
        return
    parser = Parser(prog="m3i new-plugin", usage=USAGE, add_help=False, allow_abbrev=False)
    parser.add_argument("name")
    parser.add_argument("--kind", default="observer")
    parser.add_argument("--dir", type=Path, default=Path())
    given = parser.parse_args(arguments)
    if given.kind not in EXAMPLES:
        hint = did_you_mean(given.kind, EXAMPLES)
        raise M3IError(f"there is no kind of plugin '{given.kind}'{hint} Kinds: {', '.join(EXAMPLES)}")
    names = names_for(given.name, given.kind)
    folder = given.dir / names.distribution
    files = render(names, given.kind)
    write(folder, files)
    print(f"{folder}: {len(files)} files, {given.kind}={names.component}")
    place = str(folder) if folder.is_absolute() else f"./{folder}"
    install, test = shlex.join(["pip", "install", "-e", f"{place}[test]"]), shlex.join(["pytest", place])
    print(f"\nTry it:  {install} && {test} && m3i check-plugin {names.distribution}")
