"""Refuses secrets on the command line and in config files named there: both are written to every run's folder."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from m3i.errors import M3IError

USER_IN_ADDRESS = re.compile(r"://[^\s/?#]*@|_uri[\"']?\s*[=:]\s*[\"']?[A-Za-z][\w+.\-]*://\S*@")
"""Matches a user name or password in an address, even if it contains characters that would normally end the host."""


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Raises M3IError for an argument that holds a secret, without repeating the secret."""
    from m3i.ledger.secrets import holds_secret

    for argument in arguments:
        what = holds_secret(argument) or _user_in_address(argument)
        if what:
            name = (
                argument.partition("=")[0] if "=" in argument and not holds_secret(argument.partition("=")[0]) else ""
            )
            raise M3IError(
                f"{f'the override {name}=...' if name else 'an argument'} holds a secret ({what}); configs, logs and "
                f"reports are written to disk, so keys are only read from the environment"
            )


def refuse_secret_files(arguments: Sequence[str]) -> None:
    """Raises M3IError for a user's config file that holds a secret: Hydra copies configs to the run's folder."""
    from m3i.ledger.secrets import holds_secret

    places = (Path(folder) for folder in config_folders(arguments))
    for file in (file for place in places for file in sorted(place.rglob("*.y*ml")) if file.is_file()):
        text = file.read_text(encoding="utf-8", errors="replace")
        what = holds_secret(text) or _user_in_address(text)
        if what:
            raise M3IError(
                f"{file} holds a secret ({what}); configs are copied to every run's folder, so keys are only read from "
                "the environment"
            )


def _user_in_address(text: str) -> str | None:
    return "a user name in an address" if USER_IN_ADDRESS.search(text) else None


def config_folders(arguments: Sequence[str]) -> Iterator[str]:
    """Yields the config folders given to Hydra on the command line."""
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, _, value = argument.partition("=")
        if flag in ("-cd", "-cp") or flag.startswith(("--config-d", "--config-p")):  # argparse accepts abbreviations
            yield value or following
        elif flag.lstrip("+~") == "hydra.searchpath":
            yield from re.findall(r"(?:file://)?(/[^,\]'\"]*)", value)
