"""Hands finished results on to experiment trackers: the last thing a run does; nothing depends on it.

`result.json` and `report.html` (for a sweep, `sweep.json`) are on disk before a tracker sees them, so nothing is lost
if a tracker fails, and `m3i track FOLDER tracker=NAME` hands them on later.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from m3i.errors import M3IError, TrackingError
from m3i.interfaces import Tracker

OF_TRACKERS = ("tracker", "experiment")
"""First words of overrides that can choose a tracker or set its options; an experiment preset can do so too."""


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
        overrides: The user's overrides, for the command that tracks the run later.
        note: Called with where each tracker put the run.

    Raises:
        TrackingError: One or more trackers failed; raised after all were tried, and names those that failed.
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
        except Exception as error:  # a tracker is foreign code on a network: it can raise anything
            what = str(error) if isinstance(error, M3IError) else f"{type(error).__name__}: {error}"
            failures.append(f"tracker '{alias}' failed: {message(what)}")
            first = first or error
    if failures:
        later = shlex.join(["m3i", "track", str(folder), *of_trackers(overrides)])
        raise TrackingError(
            f"{'; '.join(failures)}. Nothing is lost: {files} are in {folder}; to track them later: {redact(later)}"
        ) from first


def of_trackers(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that choose trackers and set their options."""
    return [o for o in overrides if o.lstrip("+").replace("=", ".").split(".")[0] in OF_TRACKERS]
