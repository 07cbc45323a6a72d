"""Classifies failed attempts and says how long to wait before the next."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from m3i.ledger.request import AccountError, CallError, RequestError, Transient
from m3i.ledger.secrets import message

FIRST_WAIT_S = 1.0
"""Wait before the second attempt if the server asks for none; doubled before each further one."""
LONGEST_WAIT_S = 60.0
SPREAD_S = 1.0
"""Calls that were told to wait equally long resume spread over this time, not all at once."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One failed attempt, as it is recorded."""

    kind: str
    """`429`, `500`, `timeout`, `connection refused`, `connection`, `unreadable reply`, `account`, `request`, ..."""
    message: str
    """The error's text, without secrets."""
    status: int | None = None
    maybe_billed: bool = False


def fault_of(error: BaseException) -> Fault:
    """Returns the fault to record for an error that a call ended in."""
    words = message(str(error)) or type(error).__name__
    if isinstance(error, Transient):
        kind = transient_kind(error)
        return Fault(kind=kind, message=words, status=error.status, maybe_billed=error.maybe_billed)
    if isinstance(error, AccountError):
        return Fault(kind="account", message=words)
    if isinstance(error, RequestError):
        return Fault(kind="request", message=words)
    # Not from the provider: a bug, or the task was cancelled. What became of the call is unknown.
    return Fault(kind="interrupted" if not isinstance(error, Exception) else "bug", message=words, maybe_billed=True)


def transient_kind(error: Transient) -> str:
    """Returns the kind of a transient fault: its HTTP status, else what went wrong with the connection."""
    if error.status is not None:
        return "unreadable reply" if 200 <= error.status < 300 else str(error.status)
    causes = list(_causes(error))
    names = " ".join(type(cause).__name__ for cause in causes)
    words = f"{names} {error.message}".lower()
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes) or "refused" in words:
        return "connection refused"
    if "timeout" in words or "timed out" in words:
        return "timeout"
    if "json" in words or "decode" in words or "validation" in words:
        return "unreadable reply"
    return "connection" if "connect" in words or "protocol" in words or "network" in words else "other"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and everything in its chain of causes."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__]
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions


def cleaned(error: CallError) -> CallError:
    """Returns the same error without secrets and without its causes, whose text is the client library's."""
    error.args = tuple(message(a) if isinstance(a, str) else a for a in error.args)
    if isinstance(error, Transient):
        error.message = message(error.message)
    error.__cause__, error.__context__ = None, None
    return error


def wait_s(error: Transient, attempt: int) -> float:
    """Returns the seconds to wait before the next attempt: what the server asked for, else exponential with jitter.

    Args:
        error: The error of the last attempt.
        attempt: The number of that attempt, from 1.
    """
    if error.retry_after_s:  # 0 is not taken at its word: it would hammer a server that keeps failing
        return max(0.0, error.retry_after_s) + random.uniform(0, SPREAD_S)
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt - 1, 16))
    return random.uniform(longest / 2, longest)
