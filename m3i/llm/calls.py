"""The calls of one panel: many at once, and a stop that begins no new one and loses none that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from m3i.ledger.request import ModelRequest, Provider, Reply, TooLong

if TYPE_CHECKING:
    from m3i.ledger import Answer, Ledger


class Calls:
    """Asks the ledger, and stands between it and the provider: so it knows which calls have really been sent.

    The ledger limits how many are sent at once; the others wait there. `stop` ends those that wait, for their turn or
    for another attempt, and leaves those that are sent.
    """

    def __init__(self, ledger: Ledger, provider: Provider) -> None:
        self.name = provider.name
        self.stopped: BaseException | None = None
        """Why no new call is begun."""
        self._ledger = ledger
        self._provider = provider
        self._tasks: dict[str, asyncio.Task[object]] = {}
        self._sent: set[str] = set()

    async def ask(self, request: ModelRequest, purpose: str) -> Answer | TooLong:
        """The ledger's answer. Raises the errors that concern the whole run."""
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
        """As the provider. A call that fails after `stop` is not tried again."""
        key = request.key
        self._sent.add(key)
        try:
            return await self._provider.send(request, timeout_s=timeout_s)
        except Exception:
            if self.stopped is not None:
                asyncio.get_running_loop().call_soon(self._end, key)  # the ledger books the failure first
            raise
        finally:
            self._sent.discard(key)

    async def aclose(self) -> None:
        """As the provider."""
        await self._provider.aclose()

    def stop(self, error: BaseException) -> None:
        """Begins no new call from now on; the first error counts."""
        self.stopped = self.stopped or error
        for key in self._tasks.keys() - self._sent:
            self._end(key)

    def _end(self, key: str) -> None:
        if key in self._tasks:
            self._tasks[key].cancel()

    async def work(self, n_workers: int, worker: Callable[[], Awaitable[None]]) -> None:
        """Runs `worker` that many times at once, to the end.

        When this is cancelled (Ctrl-C), so are they, and the ledger gives calls that are sent a time of grace to be
        answered and recorded.
        """
        tasks = [asyncio.ensure_future(worker()) for _ in range(n_workers)]
        if not tasks:
            return
        try:
            await asyncio.wait(tasks)  # does not cancel them when it is cancelled itself
        except asyncio.CancelledError as error:
            self.stop(error)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        for task in tasks:
            if self.stopped is None or not task.cancelled():  # `stop` may end one when its work is done
                task.result()
