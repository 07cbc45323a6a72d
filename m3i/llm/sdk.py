"""What clients built on a provider's SDK share: limits of time, the errors of a connection, quiet loggers."""

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
"""Longest wait for an answer about a batch, which may hold hundreds of MB."""
THINKING_TOKENS = 1000
"""Thinking a reply that the cost is estimated with: an assumption; a run's report has the facts."""


def connect_s(timeout_s: float) -> float:
    """Time for the connection: less than for the whole call, so that it is known when nothing was sent."""
    return min(CONNECT_S, timeout_s / 2)


@asynccontextmanager
async def in_time(who: str, timeout_s: float) -> AsyncIterator[None]:
    """Ends a call in time, with a Transient. SDKs limit the wait for the next bytes, not for the whole answer."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise Transient(f"{who}: timed out, no whole answer within {timeout_s:g} s", maybe_billed=True) from None


def connection_error(error: BaseException, *, http: Any, who: str, address: str, keys: str) -> CallError:
    """No response came, or not all of it.

    Args:
        error: Of the HTTP library, not the SDK's own around it.
        http: The library that the SDK sends with: the module httpx or httpx2.
        who: Begins the message.
        address: What sets the base URL, for messages.
        keys: Variables that may hold the key, for messages.
    """
    where = f"set by {address}"
    if isinstance(error, (http.UnsupportedProtocol, http.InvalidURL)):
        return RequestError(f"{who}: the base URL cannot be used ({where}): {name_of(error)}")
    if isinstance(error, (http.LocalProtocolError, UnicodeEncodeError)):
        return bad_key(who, keys)
    # Before a connection stands nothing has been sent.
    unsent = isinstance(error, (http.ConnectError, http.ConnectTimeout, http.PoolTimeout))
    return Transient(f"{who}: {name_of(error)} ({where})", maybe_billed=not unsent)


def bad_key(who: str, keys: str) -> AccountError:
    """The key cannot be sent: nothing was."""
    return AccountError(f"{who}: the key holds characters that no HTTP header can: look at {keys}")


def name_of(error: BaseException) -> str:
    """An error's class and words on one line, without secrets and without what it came from."""
    from m3i.ledger.secrets import message

    words = message(" ".join(str(error).split()))[:300]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def quiet(*loggers: str) -> None:
    """Keeps the SDK's notes off the terminal, unless the user has set a level of their own."""
    for name in loggers:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.ERROR)
