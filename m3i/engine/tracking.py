"""Hands finished results on to experiment trackers: the last thing a run does, and nothing depends on it.

`result.json` and `report.html` (of a sweep: `sweep.json`) are on disk before a tracker sees them, so one that
fails loses nothing, and `m3i track FOLDER tracker=NAME` hands them on later.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from m3i.errors import InputError, M3IError, TrackingError
from m3i.interfaces import Tracker

USAGE = "usage: m3i track FOLDER tracker=NAME [tracker.NAME.OPTION=VALUE]; FOLDER holds result.json or sweep.json"
OF_TRACKERS = ("tracker", "experiment")
"""First words of overrides that can choose a tracker or set its options; an experiment preset may."""


def track_run(
    trackers: Mapping[str, Tracker],
    result: Mapping[str, Any],
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Hands one run to every tracker.

    Args:
        trackers: Alias → tracker; with none, nothing happens.
        result: Content of result.json.
        folder: Where result.json and report.html are.
        overrides: What the user asked for, to say how to track it later.
        note: Is told where each tracker put the run.

    Raises:
        TrackingError: After every tracker was tried, naming those that failed.
    """
    handed = {alias: lambda t=tracker: t.track_run(result, folder) for alias, tracker in trackers.items()}
    _all(handed, "result.json and report.html", folder, overrides, note)


def track_sweep(
    trackers: Mapping[str, Tracker],
    sweep: Mapping[str, Any],
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Hands a sweep to every tracker; arguments and errors as in `track_run`, with the content of sweep.json."""
    handed = {alias: lambda t=tracker: t.track_sweep(sweep, folder) for alias, tracker in trackers.items()}
    _all(handed, "sweep.json and every result", folder, overrides, note)


def _all(
    handed: Mapping[str, Callable[[], str]],
    files: str,
    folder: Path,
    overrides: Sequence[str],
    note: Callable[[str], None],
) -> None:
    from m3i.ledger.secrets import message, redact

    failures, first = [], None
    for alias, hand_on in handed.items():
        try:
            note(redact(f"tracked by {alias}: {hand_on()}"))
        except Exception as error:  # a tracker is a plugin and a network away: anything can come out of it
            what = str(error) if isinstance(error, M3IError) else f"{type(error).__name__}: {error}"
            failures.append(f"tracker '{alias}' failed: {message(what)}")
            first = first or error
    if failures:
        later = shlex.join(["m3i", "track", str(folder), *of_trackers(overrides)])
        raise TrackingError(
            f"{'; '.join(failures)}. Nothing is lost: {files} are in {folder}; to track them later: {redact(later)}"
        ) from first


def of_trackers(overrides: Sequence[str]) -> list[str]:
    """The overrides that choose trackers and set their options."""
    return [o for o in overrides if o.lstrip("+").replace("=", ".").split(".")[0] in OF_TRACKERS]


def track_command(arguments: list[str]) -> None:
    """m3i track FOLDER OVERRIDES: hands a finished run or sweep to a tracker, such as tracker=mlflow."""
    from m3i.config.experiment import Experiment

    if not arguments or any(a.startswith("-") for a in arguments) or "=" in arguments[0]:
        raise M3IError(USAGE)
    folder, overrides = Path(arguments[0]), arguments[1:]
    trackers = Experiment.compose(*overrides).trackers
    if not trackers:
        raise M3IError(f"no tracker is chosen; {USAGE}")
    if (folder / "sweep.json").is_file():
        from m3i.sweep.stored import read_sweep

        track_sweep(trackers, read_sweep(folder / "sweep.json"), folder, overrides=overrides, note=print)
    elif (folder / "result.json").is_file():
        from m3i.results.stored import read_result

        track_run(trackers, read_result(folder / "result.json"), folder, overrides=overrides, note=print)
    else:
        raise InputError(
            f"{folder}: there is neither a result.json nor a sweep.json; name the folder of a run or sweep"
        )
