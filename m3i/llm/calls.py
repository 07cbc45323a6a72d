"""Makes the calls of one panel concurrently, and stops them without losing a call that has been sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from m3i.ledger.request import ModelRequest, Provider, Reply, TooLong

if TYPE_CHECKING:
    from m3i.ledger import Answer, Ledger


class Calls:
    """Asks the ledger and sits between it and the provider, so it knows which calls have actually been sent.

    The ledger limits how many calls are in flight; the others wait there. `stop` cancels the calls that wait, for their
    turn or for another attempt, and leaves those that have been sent.
    """

    def __init__(self, ledger: Ledger, provider: Provider) -> None:
        self.name = provider.name
        self.stopped: BaseException | None = None
        """The error that keeps new calls from being made; None while the panel runs."""
        self._ledger = ledger
        self._provider = provider
        self._tasks: dict[str, asyncio.Task[object]] = {}
        self._sent: set[str] = set()

    async def ask(self, request: ModelRequest, purpose: str) -> Answer | TooLong:
        """Returns the ledger's answer. Raises the errors that concern the whole run."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[request.key] = task
        try:
            return await self._ledger.ask(self, request, purpose=purpose)
        except TooLong as error:
            return error
        finally:
            del self._tasks[request.key]

    async def send(self, request: ModelRequest, *, timeout_s: float) -> Reply:
        """Sends through the provider. A call that fails after `stop` is not retried."""
        key = request.key
        self._sent.add(key)
        try:
            return await self._provider.send(request, timeout_s=timeout_s)
        except Exception:
            if self.stopped is not None:
                asyncio.get_running_loop().call_soon(self._end, key)  # after the ledger has recorded the failure
            raise
        finally:
            self._sent.discard(key)

    async def aclose(self) -> None:
        """Closes the provider."""
        await self._provider.aclose()

    def stop(self, error: BaseException) -> None:
        """Makes no new calls from now on; the first error given is the one kept."""
        self.stopped = self.stopped or error
        for key in self._tasks.keys() - self._sent:
            self._end(key)

    def _end(self, key: str) -> None:
        if key in self._tasks:
            self._tasks[key].cancel()

    async def work(self, n_workers: int, worker: Callable[[], Awaitable[None]]) -> None:
        """Runs `n_workers` copies of `worker` concurrently until all have ended.

        If this is cancelled (Ctrl-C), so are they; the ledger gives calls that have been sent a grace period to be
        answered and recorded.
        """
        tasks = [asyncio.ensure_future(worker()) for _ in range(n_workers)]
        if not tasks:
            return
        try:
            await asyncio.wait(tasks)  # being cancelled here does not cancel the tasks
        except asyncio.CancelledError as error:
            self.stop(error)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        for task in tasks:
            if self.stopped is None or not task.cancelled():  # `stop` may cancel one whose work is done
                task.result()
