"""The command line: a subcommand, or an experiment given as Hydra overrides."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

from m3i.cli.check_plugin import check_plugin_command
from m3i.cli.compare import compare_command
from m3i.cli.cost import cost_command
from m3i.cli.exits import UNWRITABLE, crash, end_as_interrupted, fail
from m3i.cli.ledger import ledger_command
from m3i.cli.new_plugin import new_plugin_command
from m3i.cli.options import options_command
from m3i.cli.plugins import plugins_command
from m3i.cli.report import report_command
from m3i.cli.run import hydra_command
from m3i.cli.schema import schema_command
from m3i.cli.secret_arguments import refuse_secrets
from m3i.cli.table import table_command
from m3i.cli.track import track_command
from m3i.cli.version import version_command
from m3i.errors import M3IError, did_you_mean

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "plugins": plugins_command,
    "options": options_command,
    "new-plugin": new_plugin_command,
    "check-plugin": check_plugin_command,
    "cost": cost_command,
    "ledger": ledger_command,
    "compare": compare_command,
    "table": table_command,
    "track": track_command,
    "report": report_command,
    "schema": schema_command,
    "version": version_command,
}


def main() -> None:
    """Runs `m3i` and `python -m m3i`."""
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
        return fail("interrupted; finished stages are in the store: run the same command again to continue", code=130)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in UNWRITABLE:
            return crash()
        return fail(f"cannot write {error.filename or 'a file'}: {error.strerror}; finished stages are in the store")
    except Exception:  # a bug, ours or a plugin's: whoever fixes it needs the traceback
        return crash()
    return 0
