"""How a command ends: one line for an error that the user can fix, a traceback for a bug, and no API key in either.

Exit codes: 0 done, 2 an error that the user can fix (one line says what it is), 130 interrupted, 1 a bug.
"""

from __future__ import annotations

import errno
import signal
import sys
import traceback

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def end_as_interrupted(number: int, frame: object) -> None:
    """Ends a terminated run (a cluster's preemption) like an interrupted one, so that calls in flight are recorded."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):  # as under nohup
        sys.exit(128 + number)
    signal.raise_signal(signal.SIGINT)


def crash() -> int:
    """Prints the traceback of the current exception, without API keys, and returns the exit code."""
    from m3i.ledger.secrets import redact

    print(redact(traceback.format_exc()), file=sys.stderr)
    return 1


def fail(message: str, code: int = 2) -> int:
    """Prints one line on standard error, without API keys, and returns the exit code."""
    from m3i.ledger.secrets import redact
    from m3i.wording.formats import visible

    line = redact(" ".join(message.split()))
    print(f"m3i: {visible(line)}", file=sys.stderr)  # text from a provider must not control the terminal
    return code
