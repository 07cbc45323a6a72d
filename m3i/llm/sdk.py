"""What clients built on a provider's SDK share: time limits, connection errors, quiet loggers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from m3i.ledger.request import AccountError, CallError, RequestError, Transient

CONNECT_S = 10.0
"""Longest wait for a connection."""
BATCH_CALL_S = 300.0
"""Longest wait for a response about a batch, which may be hundreds of MB."""
THINKING_TOKENS = 1000
"""Thinking tokens per reply assumed in cost estimates; a run's report has the actual numbers."""


def connect_s(timeout_s: float) -> float:
    """Returns the connection timeout: shorter than the whole call's, so that it is clear if nothing was sent."""
    return min(CONNECT_S, timeout_s / 2)


@asynccontextmanager
async def in_time(who: str, timeout_s: float) -> AsyncIterator[None]:
    """Ends a call at its time limit with a Transient. SDKs limit the wait for the next bytes, not the whole answer."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise Transient(f"{who}: timed out, no whole answer within {timeout_s:g} s", maybe_billed=True) from None


def connection_error(error: BaseException, *, http: Any, who: str, address: str, keys: str) -> CallError:
    """Returns the error for a call that got no response, or only part of one.

    Args:
        error: The HTTP library's error, not the SDK's error that wraps it.
        http: The library that the SDK sends with, the module httpx or httpx2.
        who: Start of the message.
        address: The option or variable that sets the base URL, for messages.
        keys: Variables that may hold the key, for messages.
    """
    where = f"set by {address}"
    if isinstance(error, (http.UnsupportedProtocol, http.InvalidURL)):
        return RequestError(f"{who}: the base URL cannot be used ({where}): {name_of(error)}")
    if isinstance(error, (http.LocalProtocolError, UnicodeEncodeError)):
        return bad_key(who, keys)
    # Nothing is sent before the connection is made.
    unsent = isinstance(error, (http.ConnectError, http.ConnectTimeout, http.PoolTimeout))
    return Transient(f"{who}: {name_of(error)} ({where})", maybe_billed=not unsent)


def bad_key(who: str, keys: str) -> AccountError:
    """Returns the error for a key that cannot be sent in a header; nothing was sent."""
    return AccountError(f"{who}: the key contains characters that an HTTP header cannot hold: check {keys}")


def name_of(error: BaseException) -> str:
    """Returns an error's class and message on one line, without secrets and without its causes."""
    from m3i.ledger.secrets import message

    words = message(" ".join(str(error).split()))[:300]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def quiet(*loggers: str) -> None:
    """Keeps the SDK's log messages off the terminal, unless the user has set a log level."""
    for name in loggers:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.ERROR)
