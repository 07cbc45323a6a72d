"""A sweep from its first job to its comparison. Hydra's launcher runs the jobs; here is what runs when.

    settle_folder   sweeps/<preset>-<hash of the overrides>: the same command goes on in the same folder
    run_sweep       register the plan → attributed arm at its first seed → all other jobs → compare

The first job computes every stage that the arms share, so that no worker of the second batch waits for
another, and tells how many random sets there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from m3i.errors import ConfigError, M3IError, SweepError, TrackingError
from m3i.experiment import Experiment
from m3i.progress import read_progress
from m3i.settings import LedgerMode
from m3i.sweep.overview import Overview
from m3i.sweep.plan import Job, judged_jobs, planned_jobs, register, with_jobs, write_plan

OWN = ("arm", "seed")
"""Options that the sweep sets for each job."""
ASIDE = ("sweep", "ledger", "store", "tracker")
"""Options that leave the results of every arm as they are, so that a sweep goes on in its folder under others."""


ROUNDS = 3
"""How often jobs that ended without a word are launched."""


def settle_folder(config: DictConfig) -> None:
    """Names the sweep's folder in Hydra's own options, for the launcher and for every job.

    A folder that the user named (`hydra.sweep.dir=`) stays.
    """
    given = [str(word) for word in config.hydra.overrides.hydra]
    asked = [str(word) for word in config.hydra.overrides.task]
    words = [] if any(word.lstrip("+").startswith("hydra.sweep.dir=") for word in given) else [_folder(asked)]
    words.append("hydra.sweep.subdir=${arm}/seed-${seed}")
    with read_write(config), open_dict(config):
        for word in words:
            key, _, value = word.partition("=")
            OmegaConf.update(config, key, value)
        # A job composes its config anew from these words.
        config.hydra.overrides.hydra = [*given, *words]


def _folder(asked: Sequence[str]) -> str:
    preset = next((w.partition("=")[2] for w in asked if w.lstrip("+").startswith("sweep=")), "arms")
    kept = sorted(w for w in asked if w.lstrip("+~").partition("=")[0].partition(".")[0].partition("@")[0] not in ASIDE)
    digest = hashlib.sha256("\n".join(kept).encode()).hexdigest()[:8]
    # A worker may run in another folder, or on another machine.
    return f"hydra.sweep.dir={Path.cwd() / 'sweeps' / f'{preset}-{digest}'}"


def run_sweep(
    config: DictConfig, launcher: Any, asked: list[str], check_jobs: Callable[[list[list[str]]], None]
) -> None:
    """Runs what is missing of a sweep and compares the arms.

    Args:
        config: Composed by Hydra, with its own section.
        launcher: Hydra's launcher, set up.
        asked: The user's overrides.
        check_jobs: Composes the configs of jobs and raises where one cannot be.

    Raises:
        M3IError: A config that no arm can run with; or, after everything that could run has run, jobs that failed.
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
        from m3i.cost_command import print_cost

        print_cost(experiment, judged_jobs(settings))
        return
    folder = Path(str(config.hydra.sweep.dir))
    plan = register(
        folder,
        settings,
        judge=judge,
        generation_seeds=list(experiment.settings.evaluate.seeds),
        command=str(config.hydra.job.get("command", "")) or _command(asked),
        overrides=asked,
    )
    jobs = planned_jobs(settings)
    check_jobs([_words(asked, jobs[0])])
    write_plan(folder, with_jobs(plan, jobs, plan["n_sets"]))
    with Overview(folder, jobs) as overview:
        trouble = _launch(launcher, asked, jobs[:1], 0, folder)
        n_sets = read_progress(folder / jobs[0].folder).arm.get("n_sets")
        if n_sets is None:
            error = read_progress(folder / jobs[0].folder).error or trouble or "it ended without a word"
            raise SweepError(f"arm {jobs[0].arm}, seed {jobs[0].seed}: {error}")
        jobs = planned_jobs(settings, n_sets)
        write_plan(folder, with_jobs(plan, jobs, n_sets))
        overview.jobs = jobs
        if n_sets < settings.n_random:
            overview.note(
                f"there are {n_sets} other sets of layers, fewer than sweep.n_random = {settings.n_random}: each is "
                f"run once, and p cannot be below {1 / (n_sets + 1):.3g}"
            )
        trouble = _launch(launcher, asked, jobs[1:], 1, folder) or trouble if jobs[1:] else trouble
    finish(folder, experiment, jobs, trouble)


def finish(folder: Path, experiment: Experiment, jobs: Sequence[Job], trouble: str) -> None:
    """Compares what there is, says what is missing, and hands the rest to the trackers.

    Raises:
        SweepError: Jobs did not finish; what finished is compared all the same.
        TrackingError: A tracker failed, of a job or of the sweep.
    """
    from m3i.sweep.command import compare
    from m3i.tracking import track_sweep

    sweep = compare(folder)
    ended = {job: read_progress(folder / job.folder) for job in jobs}
    lost = [job for job, progress in ended.items() if progress.state != "done"]
    if lost:
        first = ended[lost[0]].error or trouble or "it ended without a word"
        raise SweepError(
            f"{len(lost)} of {len(jobs)} jobs did not finish, the first of them arm {lost[0].arm}, seed "
            f"{lost[0].seed}: {first} -- the same command runs only what is missing"
        )
    track_sweep(experiment.trackers, sweep, folder, overrides=experiment.overrides, note=print)
    untracked = [progress.error for progress in ended.values() if progress.error]
    if untracked:
        raise TrackingError(f"{len(untracked)} of {len(jobs)} jobs: {untracked[0]}")


def _launch(launcher: Any, asked: list[str], jobs: Sequence[Job], first: int, folder: Path) -> str:
    """Runs jobs through Hydra's launcher; what went wrong with the launcher itself, in words.

    What a job ended with is in its own progress.jsonl. A worker that is killed surfaces as an error of the launcher's
    library and can take others with it, so jobs that did not end are launched again, a few times. One that still runs
    somewhere does no harm: both go on from the store.
    """
    before = {job: read_progress(folder / job.folder).attempt for job in jobs}
    left, trouble = list(jobs), ""
    for _ in range(ROUNDS):
        try:
            launcher.launch([_words(asked, job) for job in left], initial_job_idx=first)
        except M3IError:
            raise
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
        else:
            return ""
        seen = {job: read_progress(folder / job.folder) for job in left}
        left = [job for job, p in seen.items() if p.attempt == before[job] or p.state == "running"]
        if not left:
            return trouble
    return trouble


def _words(asked: list[str], job: Job) -> list[str]:
    return [*asked, f"arm={job.arm}", f"seed={job.seed}"]


def _command(asked: Sequence[str]) -> str:
    import shlex

    return shlex.join(["python", "-m", "m3i", "-m", *asked])


def refuse_axes(asked: Sequence[str]) -> None:
    """Raises ConfigError where the command line asks for several experiments, or sets what the sweep sets itself."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for word, override in zip(asked, OverridesParser.create().parse_overrides(list(asked)), strict=True):
        name = override.key_or_group
        if name in OWN:
            raise ConfigError(
                f"{word}: a sweep sets '{name}' for each job; training seeds are sweep.seeds=[0,1,2], arms are chosen "
                f"with sweep.n_random=, sweep.n_excluding= and sweep.others="
            )
        if override.is_sweep_override():
            raise ConfigError(
                f"{word}: +sweep=control runs the arms of one experiment; give one value, and run the command once for "
                f"each (they share the store)"
            )
