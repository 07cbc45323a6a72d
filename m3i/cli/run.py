"""`python -m m3i OVERRIDES`: runs one experiment, or a multirun, given as Hydra overrides."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from m3i.cli.exits import fail
from m3i.cli.secret_arguments import refuse_secret_files
from m3i.errors import JobError, M3IError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def hydra_command(arguments: list[str]) -> None:
    """Runs one experiment or a multirun. Raises M3IError for anything that the user can fix."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from m3i.config.experiment import prepare_hydra
    from m3i.config.explain import NO_NAME, explain
    from m3i.config.source import conf_dir

    if any(a.startswith("--experimental-rerun") for a in arguments):
        raise M3IError("--experimental-rerun reads a pickle, which can run code; give the overrides instead")
    refuse_secret_files(arguments)
    quiet_libraries()
    prepare_hydra()
    command = shlex.join(["python", "-m", "m3i", *arguments])

    failures: list[M3IError] = []

    def task(config: DictConfig) -> None:
        try:
            run_job(config, command)
        except JobError:
            raise  # a multirun's job may run in another process; Hydra brings its error here
        except M3IError as error:  # Hydra would also print the overrides
            failures.append(error)

    # Hydra prints its own errors and exits, unless told to raise them; then we can report them in one line.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    saved, sys.argv = sys.argv, ["m3i", *arguments]
    try:
        hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(task)()
    except JobError as error:  # Hydra raises the first after all jobs; each job has printed its own
        raise M3IError(f"a job failed: {error} -- the others ran; repeat the command to run what is missing") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise M3IError(explain(error)) from error
    except ValueError as error:
        if NO_NAME not in str(error):
            raise
        raise M3IError(explain(error)) from error
    finally:
        sys.argv = saved
    if failures:
        raise failures[0]


def run_job(config: DictConfig, command: str) -> None:
    """Runs one Hydra job, in this process or in a launcher's worker: checks the config, runs, prints the summary.

    Raises:
        JobError: A job of a multirun failed; its message is printed too, since launchers report only the first error.
        M3IError: A single run failed.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from m3i.config.experiment import Experiment
    from m3i.config.settings import LedgerMode
    from m3i.ledger.secrets import install_log_redaction

    install_log_redaction()
    quiet_libraries()
    hydra_config = HydraConfig.get()
    of_arms = "ArmSweeper" in str(hydra_config.sweeper.get("_target_", ""))
    in_sweep = of_arms and hydra_config.mode is RunMode.MULTIRUN
    try:
        if of_arms and not in_sweep:
            raise M3IError("+sweep=control describes many jobs; start it with -m: python -m m3i -m +sweep=control ...")
        experiment = Experiment.from_config(config, list(hydra_config.overrides.task))
        if experiment.settings.ledger.mode is LedgerMode.estimate:
            from m3i.engine.cost import print_cost

            print_cost(experiment)
            return
        from m3i.engine.run import run

        # A sweep's overview shows its jobs wherever they run.
        finished = run(experiment, run_dir=Path(hydra_config.runtime.output_dir), quiet=in_sweep, command=command)
    except M3IError as error:
        if hydra_config.mode is not RunMode.MULTIRUN:
            raise
        if not in_sweep:  # a sweep's overview reports the errors of its jobs
            fail(str(error))
        raise JobError(str(error)) from error
    for line in () if in_sweep else finished.summary:
        print(line)


def quiet_libraries() -> None:
    """Silences messages of libraries that do not concern the user, in this process and in every worker."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # about the libraries' next versions
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it announces every file it writes
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what it warns about becomes an error of ours
