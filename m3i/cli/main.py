"""The command line: a first word that is a subcommand, or an experiment in Hydra's words.

Exit codes: 0 done, 2 something the user can mend (one line says what), 130 interrupted, 1 a bug (a traceback).
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3i.cli.secret_arguments import refuse_secret_files, refuse_secrets
from m3i.errors import JobError, M3IError, did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig


UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def main() -> None:
    """Entry point of `m3i` and `python -m m3i`."""
    signal.signal(signal.SIGTERM, end_as_interrupted)
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        refuse_secrets(arguments)
        first = arguments[0] if arguments else ""
        if first in COMMANDS:
            COMMANDS[first](list(arguments[1:]))
        elif first and first[0] not in "-+~" and "=" not in first:
            raise M3IError(
                f"'{first}' is neither a subcommand nor an override{did_you_mean(first, COMMANDS)} "
                f"Subcommands: {', '.join(COMMANDS)}; overrides look like selector=random (see m3i --help)"
            )
        else:
            hydra_command(list(arguments))
    except M3IError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted; finished stages are in the store: run the same command again to go on", code=130)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in UNWRITABLE:
            return crash()
        return fail(f"cannot write {error.filename or 'a file'}: {error.strerror}; finished stages are in the store")
    except Exception:  # a bug of ours or of a plugin: its traceback is for the person who mends it, without keys
        return crash()
    return 0


def end_as_interrupted(number: int, frame: object) -> None:
    """A terminated run (a cluster's preemption) ends like an interrupted one: calls in flight are recorded first."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):  # as under nohup
        sys.exit(128 + number)
    signal.raise_signal(signal.SIGINT)


def crash() -> int:
    """Prints the traceback of the exception being handled, without keys, and returns the exit code."""
    from m3i.ledger.secrets import redact

    print(redact(traceback.format_exc()), file=sys.stderr)
    return 1


def fail(message: str, code: int = 2) -> int:
    """Prints one line on standard error, without keys, and returns the exit code."""
    from m3i.ledger.secrets import redact
    from m3i.report.texts import visible

    line = redact(" ".join(message.split()))
    print(f"m3i: {visible(line)}", file=sys.stderr)  # a provider's words cannot clear the screen
    return code


# -- experiments ------------------------------------------------------------------------------


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
            from m3i.cli.cost import print_cost

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


# -- subcommands ------------------------------------------------------------------------------


def plugins_command(arguments: list[str]) -> None:
    """m3i plugins [GROUP]: what is installed and who provides it."""
    from rich.console import Console
    from rich.table import Table

    from m3i.config.registry import INTERFACES, installed

    groups = arguments or list(INTERFACES)
    unknown = [g for g in groups if g not in INTERFACES]
    if unknown:
        raise M3IError(
            f"there is no component group '{unknown[0]}'{did_you_mean(unknown[0], INTERFACES)} "
            f"Groups: {', '.join(INTERFACES)}"
        )
    registry = installed()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("group", "name", "what it does", "from"):
        table.add_column(column, overflow="fold")
    for group in groups:
        for name in registry.names(group):
            entry = registry.find(group, name)
            table.add_row(group, name, entry.summary(), f"{entry.distribution} {entry.version}")
    Console(highlight=False).print(table)
    print("\nOptions of one: m3i options GROUP NAME   Use: python -m m3i GROUP=NAME GROUP.OPTION=VALUE")


def options_command(arguments: list[str]) -> None:
    """m3i options GROUP NAME: the options of one component, with their defaults and meaning."""
    import dataclasses

    from m3i.component import field_docs
    from m3i.config.registry import INTERFACES, PANELS, installed

    if len(arguments) != 2 or arguments[0] not in INTERFACES:
        raise M3IError(f"usage: m3i options GROUP NAME, with GROUP one of {', '.join(INTERFACES)}")
    group, name = arguments
    entry = installed().find(group, name)
    print(f"{group}={name}   {entry.summary()}\nfrom {entry.distribution} {entry.version}, {entry.cls.__module__}\n")
    docs = field_docs(entry.cls)
    prefix = f"{group}.{name}" if group in PANELS else group
    for field in dataclasses.fields(entry.cls):
        print(f"{prefix}.{field.name} = {default_text(field)}\n    {docs.get(field.name, '')}")


def default_text(field: Any) -> str:
    """A field's default as the command line would take it."""
    import dataclasses

    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "(required)"
    return str(getattr(value, "value", value))


def cost_command(arguments: list[str]) -> None:
    """m3i cost OVERRIDES: what the experiment's remote calls would come to; nothing is called."""
    from m3i.cli.cost import cost_command as command

    command(arguments)


def ledger_command(arguments: list[str]) -> None:
    """m3i ledger show|export|import: the record of remote calls."""
    from m3i.cli.ledger import ledger_command as command

    command(arguments)


def compare_command(arguments: list[str]) -> None:
    """m3i compare SWEEP: tests the attributed arm against its controls, from the stored results alone."""
    from m3i.cli.compare import compare_command as command

    command(arguments)


def export_command(arguments: list[str]) -> None:
    """m3i export FOLDER: every judgement of a run or sweep as results.parquet and results.csv."""
    from m3i.cli.table import export_command as command

    command(arguments)


def track_command(arguments: list[str]) -> None:
    """m3i track FOLDER tracker=NAME: hands a finished run or sweep to experiment trackers."""
    from m3i.engine.tracking import track_command as command

    command(arguments)


def report_command(arguments: list[str]) -> None:
    """m3i report FOLDER: renders report.html again from a run's result.json or a sweep's sweep.json."""
    from m3i.report import render_report, render_sweep
    from m3i.results.stored import read_result
    from m3i.store.whole_files import write_texts
    from m3i.sweep.stored import read_sweep

    if len(arguments) != 1:
        raise M3IError("usage: m3i report FOLDER (with result.json or sweep.json)")
    folder = Path(arguments[0])
    sweep, report = folder / "sweep.json", folder / "report.html"
    page = render_sweep(read_sweep(sweep)) if sweep.is_file() else render_report(read_result(folder / "result.json"))
    write_texts({report: page})
    print(report)


def schema_command(arguments: list[str]) -> None:
    """m3i schema result|sweep: the fields of result.json or sweep.json as a JSON Schema."""
    from m3i.cli.schema import schema_command as command

    command(arguments)


def version_command(arguments: list[str]) -> None:
    """m3i version: versions of m3i and of what it stands on."""
    from m3i.component import library_version

    for name in ("m3i", "torch", "transformers", "peft", "trl", "llama-cpp-python", "hydra-core"):
        print(f"{name} {library_version(name)}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "plugins": plugins_command,
    "options": options_command,
    "cost": cost_command,
    "ledger": ledger_command,
    "compare": compare_command,
    "export": export_command,
    "track": track_command,
    "report": report_command,
    "schema": schema_command,
    "version": version_command,
}
