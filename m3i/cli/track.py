"""`m3i track`: hands a finished run or sweep to experiment trackers."""

from __future__ import annotations

from pathlib import Path

from m3i.errors import InputError, M3IError

USAGE = "usage: m3i track FOLDER tracker=NAME [tracker.NAME.OPTION=VALUE]; FOLDER holds result.json or sweep.json"


def track_command(arguments: list[str]) -> None:
    """m3i track FOLDER OVERRIDES: hands a finished run or sweep to a tracker, such as tracker=mlflow."""
    from m3i.config.experiment import Experiment
    from m3i.engine.tracking import track_run, track_sweep

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
            f"{folder}: there is neither a result.json nor a sweep.json; give the folder of a run or a sweep"
        )
