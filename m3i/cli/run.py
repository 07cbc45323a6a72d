"""`python -m m3i OVERRIDES`: one experiment in Hydra's words, or a multirun of them."""

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
    """Runs one experiment, or a multirun of them. Raises M3IError."""
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
            raise  # a multirun's job may run in another process: Hydra carries its error here
        except M3IError as error:  # Hydra would print the overrides too
            failures.append(error)

    # Hydra prints its own errors and ends the process, unless told to raise them: then they are ours to say in a line.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    saved, sys.argv = sys.argv, ["m3i", *arguments]
    try:
        hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(task)()
    except JobError as error:  # Hydra hands on the first after all jobs; each has said its own on standard error
        raise M3IError(f"a job failed: {error} -- the others ran; the same command runs what is missing") from error
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
    """One job of Hydra, in this process or in a launcher's worker: checks the config, runs, prints the summary.

    Raises:
        JobError: What went wrong in a job of a multirun; printed too, since the launcher hands on the first alone.
        M3IError: What went wrong elsewhere.
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
            raise M3IError(
                "+sweep=control describes many jobs: start it with -m, as python -m m3i -m +sweep=control ..."
            )
        experiment = Experiment.from_config(config, list(hydra_config.overrides.task))
        if experiment.settings.ledger.mode is LedgerMode.estimate:
            from m3i.engine.cost import print_cost

            print_cost(experiment)
            return
        from m3i.engine.run import run

        # The sweep's overview shows its jobs, wherever they run.
        finished = run(experiment, run_dir=Path(hydra_config.runtime.output_dir), quiet=in_sweep, command=command)
    except M3IError as error:
        if hydra_config.mode is not RunMode.MULTIRUN:
            raise
        if not in_sweep:  # a sweep's overview tells its jobs' errors
            fail(str(error))
        raise JobError(str(error)) from error
    for line in () if in_sweep else finished.summary:
        print(line)


def quiet_libraries() -> None:
    """Silences what libraries say about themselves, in this process and in every worker."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # about their next versions
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it announces every file it writes
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what it warns of comes as our error
