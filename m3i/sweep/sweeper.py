"""Runs a sweep from its first job to its comparison. Hydra's launcher runs the jobs; this module says which, and when.

    settle_folder   sweeps/<preset>-<hash of the overrides>: the same command continues in the same folder
    run_sweep       register the plan → attributed arm at its first seed → all other jobs → compare

The first job computes every stage that the arms share, so that no worker of the second batch waits for
another. Its result also gives the number of random sets.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from m3i.config.experiment import Experiment
from m3i.config.settings import LedgerMode
from m3i.errors import ConfigError, M3IError, SweepError, TrackingError
from m3i.models.session import TargetSession
from m3i.progress.journal import Attempts, Progress
from m3i.sweep.overview import Overview
from m3i.sweep.plan import (
    ASIDE,
    OWN,
    PlannedJob,
    judged_jobs,
    options_of_all,
    planned_jobs,
    register,
    with_jobs,
    write_plan,
)

ROUNDS = 3
"""How many times jobs without an outcome are launched."""


def settle_folder(config: DictConfig) -> None:
    """Sets the sweep's folder in Hydra's options, for the launcher and for every job.

    A folder that the user named (`hydra.sweep.dir=`) is kept.
    """
    given = [str(word) for word in config.hydra.overrides.hydra]
    named = any(word.lstrip("+").startswith("hydra.sweep.dir=") for word in given)
    options = {"hydra.sweep.subdir": "${arm}/seed-${seed}"}
    if not named:
        options["hydra.sweep.dir"] = str(default_folder([str(word) for word in config.hydra.overrides.task]))
    with read_write(config), open_dict(config):
        for key, value in options.items():
            OmegaConf.update(config, key, value)
        # Each job composes its config from these overrides.
        config.hydra.overrides.hydra = [*given, *(f"{key}={quoted(value)}" for key, value in options.items())]


def default_folder(asked: Sequence[str]) -> Path:
    """Returns sweeps/<preset>-<hash of the overrides>, absolute because a worker may run in another folder."""
    preset = next((w.partition("=")[2] for w in asked if w.lstrip("+").startswith("sweep=")), "arms")
    kept = sorted(w for w in asked if w.lstrip("+~").partition("=")[0].partition(".")[0].partition("@")[0] not in ASIDE)
    return Path.cwd() / "sweeps" / f"{preset}-{hashlib.sha256(chr(10).join(kept).encode()).hexdigest()[:8]}"


def quoted(value: str) -> str:
    """Quotes a value so that Hydra's override grammar takes it literally, whatever characters a folder's name has."""
    return "'" + value.replace("'", "\\'") + "'"


def run_sweep(
    config: DictConfig, launcher: Any, asked: list[str], check_jobs: Callable[[list[list[str]]], None]
) -> None:
    """Runs the missing jobs of a sweep and compares the arms.

    Args:
        config: The config composed by Hydra, with Hydra's own section.
        launcher: Hydra's launcher, set up.
        asked: The user's overrides.
        check_jobs: Composes the configs of jobs and raises where it cannot.

    Raises:
        M3IError: No arm can run with this config; or, after all other jobs have run, some jobs failed.
    """
    refuse_axes(asked)
    plain = config.copy()
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
    experiment = Experiment.from_config(plain, asked)
    settings = experiment.settings.sweep
    judge = settings.judge or next(iter(experiment.judges))
    if judge not in experiment.judges:
        raise ConfigError(f"sweep.judge = '{judge}': no such judge is in the panel ({', '.join(experiment.judges)})")
    if experiment.settings.ledger.mode is LedgerMode.estimate:
        from m3i.engine.cost import print_cost

        print_cost(experiment, judged_jobs(settings))
        return
    from m3i.engine.preflight import preflight

    # Anything that would fail the first job is reported here, once.
    preflight(experiment, TargetSession(experiment.target).info)
    folder = Path(str(config.hydra.sweep.dir))
    jobs = planned_jobs(settings)
    check_jobs([_words(asked, jobs[0])])
    with only_here(folder):
        plan = register(
            folder,
            settings,
            judge=judge,
            config=options_of_all(experiment.config),
            command=shlex.join(["python", "-m", "m3i", *sys.argv[1:]]),
            overrides=asked,
        )
        write_plan(folder, with_jobs(plan, jobs, plan["n_sets"]))
        sweep = Sweep(folder, asked, launcher)
        with Overview(folder, jobs) as overview:
            sweep.launch(jobs[:1], 0)
            arm = sweep.arm_of(jobs[0])
            jobs = planned_jobs(settings, arm["n_sets"], arm["n_excluding_sets"])
            write_plan(folder, with_jobs(plan, jobs, arm["n_sets"]))
            overview.jobs = jobs
            if arm["n_sets"] < settings.n_random:
                overview.note(
                    f"there are {arm['n_sets']} other sets of layers, fewer than sweep.n_random = {settings.n_random}: "
                    f"each is run once, and p cannot be below {1 / (arm['n_sets'] + 1):.3g}"
                )
            if jobs[1:]:
                sweep.launch(jobs[1:], 1)
        sweep.finish(experiment, jobs)


@contextlib.contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Holds the sweep's lock; raises SweepError where another command runs this sweep, as both would write one plan."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"hydra.sweep.dir={folder}: {error.filename} is a file; name a folder") from None
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SweepError(
            f"another command is running the sweep in {folder}: wait for it, or name another folder with "
            f"hydra.sweep.dir= (they share the store)"
        ) from None
    try:
        yield
    finally:
        lock.release()


class Sweep:
    """The jobs of one command in a sweep's folder."""

    def __init__(self, folder: Path, asked: list[str], launcher: Any) -> None:
        """`launcher` is Hydra's, set up; `asked` are the user's overrides."""
        self.folder, self.asked, self.launcher = folder, asked, launcher
        self.trouble = ""
        """What went wrong with the launcher itself, in words."""
        self._attempts = Attempts(folder)

    def progress(self, job: PlannedJob) -> Progress:
        """Returns what became of a job under this command."""
        return self._attempts.progress(job.folder)

    def launch(self, jobs: Sequence[PlannedJob], first: int) -> None:
        """Runs jobs through Hydra's launcher.

        A job's outcome is in its progress.jsonl. A worker that is killed surfaces as an error of the launcher's library
        and can take others with it, so jobs that did not end are launched again, a few times. A job that still runs
        somewhere does no harm: both continue from the store.
        """
        left = list(jobs)
        for _ in range(ROUNDS):
            try:
                self.launcher.launch([_words(self.asked, job) for job in left], initial_job_idx=first)
            except M3IError:
                raise
            except Exception as error:
                self.trouble = f"{type(error).__name__}: {error}"
            else:
                return
            left = [job for job in left if self.progress(job).state in ("waiting", "running")]
            if not left:
                return

    def arm_of(self, job: PlannedJob) -> dict[str, Any]:
        """Returns the section `arm` of the first job. Raises SweepError where it ended before its layers were known."""
        progress = self.progress(job)
        if not progress.arm:
            raise SweepError(f"arm {job.arm}, seed {job.seed}: {self.why(progress)}")
        return progress.arm

    def why(self, progress: Progress) -> str:
        """Returns why a job is not done."""
        return progress.error or self.trouble or "it ended without a message"

    def finish(self, experiment: Experiment, jobs: Sequence[PlannedJob]) -> None:
        """Compares the jobs that finished, passes the comparison to the trackers, and reports what is missing.

        Raises:
            SweepError: Some jobs did not finish; those that did are still compared.
            TrackingError: A tracker failed, for a job or for the sweep.
        """
        from m3i.engine.tracking import track_sweep
        from m3i.sweep.write import write_comparison

        ended = {job: self.progress(job) for job in jobs}
        lost = [job for job, progress in ended.items() if progress.state != "done"]
        document = write_comparison(self.folder)
        try:
            track_sweep(experiment.trackers, document, self.folder, overrides=experiment.overrides, note=print)
        finally:
            if lost:
                raise SweepError(
                    f"{len(lost)} of {len(jobs)} jobs did not finish (the same command runs only these); the first "
                    f"is arm {lost[0].arm}, seed {lost[0].seed}: {self.why(ended[lost[0]])}"
                )
        untracked = [progress.error for progress in ended.values() if progress.error]
        if untracked:
            raise TrackingError(f"{len(untracked)} of {len(jobs)} jobs: {untracked[0]}")


def _words(asked: list[str], job: PlannedJob) -> list[str]:
    return [*asked, f"arm={job.arm}", f"seed={job.seed}"]


def refuse_axes(asked: Sequence[str]) -> None:
    """Raises ConfigError where the command line asks for several experiments, or sets what the sweep sets itself."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for word, override in zip(asked, OverridesParser.create().parse_overrides(list(asked)), strict=True):
        name = override.key_or_group
        if name in OWN:
            raise ConfigError(
                f"{word}: a sweep sets '{name}' for each job; choose training seeds with sweep.seeds=[0,1,2] and arms "
                f"with sweep.n_random=, sweep.n_excluding= and sweep.others="
            )
        if override.is_sweep_override():
            raise ConfigError(
                f"{word}: +sweep=control runs the arms of one experiment; give one value and run the command once per "
                f"value (the runs share the store)"
            )
