"""Rewrites errors of Hydra and OmegaConf as one line: what is wrong, what was given, what to do."""

from __future__ import annotations

import re

from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from m3i.errors import M3IError, did_you_mean

NO_LAUNCHER = re.compile(r"Could not find 'hydra/launcher/(?P<name>[^']+)'")
LAUNCHER_EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}
"""Launcher → the extra of M3I that installs it."""
NO_NAME = "Config group override must be a string or a list"
"""Hydra's message, in a bare ValueError, for `trainer=null` or `=3`."""


def explain(error: BaseException) -> str:
    """Returns the error as one line for the user."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, M3IError):
            return str(cause)
        if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
            return _unknown_option(cause)
        if isinstance(cause, ValidationError):
            return f"option '{cause.full_key}': {_first_line(cause)}"
        if NO_NAME in str(cause):
            return "choose a component by its name, such as trainer=dpo_lora (see 'm3i plugins')"
        if launcher := NO_LAUNCHER.search(str(cause)):
            return _no_launcher(launcher["name"])
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split("Config search path:")[0].split())


def _no_launcher(name: str) -> str:
    if name in LAUNCHER_EXTRAS:
        return f"launcher '{name}' is not installed; pip install 'm3i[{LAUNCHER_EXTRAS[name]}]'"
    extras = ", ".join(f"{launcher} (m3i[{extra}])" for launcher, extra in LAUNCHER_EXTRAS.items())
    return f"there is no launcher '{name}'{did_you_mean(name, LAUNCHER_EXTRAS)} M3I's extras install {extras}"


def _unknown_option(error: OmegaConfBaseException) -> str:
    known = [str(k) for k in error.parent_node] if isinstance(error.parent_node, DictConfig) else []
    return unknown_option(error.full_key or str(error.key), known)


def unknown_option(path: str, known: list[str]) -> str:
    """Returns the message for an option that does not exist; `known` are the options in the same place."""
    prefix, _, name = path.rpartition(".")
    full = [f"{prefix}.{k}" if prefix else k for k in known]
    hint = did_you_mean(path, full) if did_you_mean(name, known) != "." else "."
    place = f"Options of {prefix}" if prefix else "Options"
    return f"option '{path}' does not exist{hint} {place}: {', '.join(sorted(known)) or 'none'}"


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]
