"""Limits the calls to one model that are in flight, adapting to the provider's 429s.

Additive increase, multiplicative decrease, as in TCP. Source: Chiu and Jain 1989, "Analysis of the increase and
decrease algorithms for congestion avoidance". `Window` does the arithmetic and reads no clock; `Limiter` makes tasks
wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

START = 4
"""Limit to begin with, unless the cap is lower: small enough for a new account's rate limit."""


@dataclass
class Window:
    """The number of calls that may be in flight. Times are in seconds, on any monotonic clock."""

    cap: int
    """Upper bound of the limit."""
    limit: int = 0
    """The current limit."""
    in_flight: int = 0
    paused_until: float = 0.0
    """No call is sent before this time."""
    _successes: int = 0
    _round: int = 0
    """Number of decreases so far; a call that began in an earlier round no longer changes the limit."""

    def __post_init__(self) -> None:
        """Sets the limit to `START`, within the cap."""
        self.limit = max(1, min(START, self.cap))

    def may_start(self, now: float) -> bool:
        """Returns whether one more call may be sent now."""
        return now >= self.paused_until and self.in_flight < self.limit

    def start(self) -> int:
        """Counts a call as begun; returns its round, which `end` takes."""
        self.in_flight += 1
        return self._round

    def end(self, began_in: int, *, answered: bool) -> None:
        """Counts a call as ended. A window of answers raises the limit by one; a failure says nothing about load."""
        self.in_flight -= 1
        if answered and began_in == self._round:
            self._successes += 1
            if self._successes >= self.limit:
                self._successes = 0
                self.limit = min(self.cap, self.limit + 1)

    def overloaded(self, began_in: int, now: float, retry_after_s: float | None) -> None:
        """Halves the limit when the provider asks for fewer calls, once for all calls in flight together."""
        if retry_after_s is not None:
            self.paused_until = max(self.paused_until, now + retry_after_s)
        if began_in == self._round:
            self._round += 1
            self._successes = 0
            self.limit = max(1, self.limit // 2)


class Permit:
    """Permission to send one call."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._round = limiter.window.start()
        self._answered = False

    @property
    def held_up(self) -> bool:
        """Whether the provider has asked for a pause since the permit was given."""
        return asyncio.get_running_loop().time() < self._limiter.window.paused_until

    def answered(self) -> None:
        """Notes that the provider replied."""
        self._answered = True

    def overloaded(self, retry_after_s: float | None) -> None:
        """Notes that the provider returned 429 or 529."""
        self._limiter.window.overloaded(self._round, asyncio.get_running_loop().time(), retry_after_s)

    def close(self) -> None:
        """Frees the place for the next call."""
        self._limiter.window.end(self._round, answered=self._answered)


class Limiter:
    """Makes the calls to one model wait for their turn, first come, first served. Belongs to one event loop."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._queue: list[asyncio.Event] = []

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[Permit]:
        """Waits until a call may be sent, and holds its place until the block ends."""
        turn = asyncio.Event()
        self._queue.append(turn)
        try:
            self._wake()
            await turn.wait()
            while not self.window.may_start(asyncio.get_running_loop().time()):  # the limit has fallen meanwhile
                turn.clear()
                self._wake()
                await turn.wait()
            permit = Permit(self)
        finally:
            self._queue.remove(turn)
            self._wake()
        try:
            yield permit
        finally:
            permit.close()
            self._wake()

    def _wake(self) -> None:
        """Wakes as many waiters at the head of the queue as there are free places."""
        if not self._queue:
            return
        loop = asyncio.get_running_loop()
        pause = self.window.paused_until - loop.time()
        if pause > 0:
            loop.call_later(pause, self._wake)  # a pause ends by the clock, not by another call
            return
        for turn in self._queue[: max(0, self.window.limit - self.window.in_flight)]:
            turn.set()
