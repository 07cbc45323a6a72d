"""What single calls and batches share: settings, the database's thread, counts, prices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from m3i.config.settings import LedgerMode, LedgerSettings
from m3i.errors import ConfigError
from m3i.ledger import batch_rows
from m3i.ledger.answers import Call, Stored
from m3i.ledger.calls import Short
from m3i.ledger.database import Database
from m3i.ledger.outcomes import Answer, BudgetError, ReplayError
from m3i.ledger.prices import Price, cost, estimate, price_of, price_source
from m3i.ledger.request import Block, ModelRequest, Reply, TooLong
from m3i.ledger.secrets import holds_secret, message
from m3i.ledger.tally import Counting
from m3i.store.shared_folder import network_type

T = TypeVar("T")

SHORTEST_LOOK_S = 0.05
LONGEST_LOOK_S = 1.0
"""Between two looks at what another task or process has in flight: from the shortest, growing, to the longest."""


@dataclass
class Context:
    """One open ledger, for the modules that make calls."""

    settings: LedgerSettings
    path: Path
    counting: Counting
    note: Callable[[str], None] = lambda text: None
    """Tells the person who waits what is waited for."""
    polling: set[int] = field(default_factory=set)
    """Rows of the batches that this process waits for now."""
    recording: str = ""
    _thread: ThreadPoolExecutor | None = None
    _db: Database | None = None

    @property
    def only(self) -> bool:
        """Only answers of this recording count."""
        return self.settings.mode is LedgerMode.record

    @property
    def is_open(self) -> bool:
        """Whether the file has been opened."""
        return self._thread is not None

    # -- the database's thread ----------------------------------------------------------------

    def submit(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Runs `function(database, ...)` in the one thread that holds the connection."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="m3i-ledger")
        return self._thread.submit(lambda: function(self._opened(), *args, **kwargs))

    async def do(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """The same, awaited. Never cut short: a cancellation that arrives meanwhile takes effect afterwards."""
        future = asyncio.wrap_future(self.submit(function, *args, **kwargs))
        cancelled = False
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            cancel_later()
        return future.result()

    def check_place(self) -> None:
        """Raises ConfigError where the default place is no place for SQLite: several machines would damage the file."""
        found = "" if self.settings.path or self.settings.mode is LedgerMode.replay else network_type(self.path)
        if found:
            raise ConfigError(
                f"the ledger {self.path} would lie on a network file system ({found}), where SQLite is safe from one "
                f"machine only; give ledger.path a file on a local disk, or ledger.path={self.path} if all runs that "
                "use it are on one machine"
            )

    def _opened(self) -> Database:
        if self._db is None:
            self.check_place()
            self._db = Database(self.path, create=self.settings.mode is not LedgerMode.replay)
        return self._db

    def close(self) -> None:
        """Ends the thread and the connection; the next use opens them again."""
        if self._thread is None:
            return
        try:
            self._thread.submit(self._close).result()
        finally:
            self._thread.shutdown(wait=True)
            self._thread = None

    def _close(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()
            db.owners.end()

    # -- calls --------------------------------------------------------------------------------

    def price(self, request: ModelRequest) -> Price | None:
        """What the model costs. Raises ConfigError when there is a budget and no price to hold against it."""
        return required_price(request.provider, request.model, self.settings)

    def call(self, request: ModelRequest, purpose: str, *, batch: bool = False) -> Call:
        """A request ready to be reserved. Raises ConfigError when its text holds a key, or for `price`'s reasons."""
        blocks: list[Block] = [*request.system, *(block for turn in request.messages for block in turn.blocks)]
        for text in (*(block.text for block in blocks), str(dict(request.options)), str(request.schema)):
            if name := holds_secret(text, patterns=False):
                raise ConfigError(
                    f"the request '{message(purpose)}' holds the value of the environment variable {name}: it was not "
                    "sent, and nothing of it is kept; take it out of the options or the text, or unset the variable "
                    "if it is no secret"
                )
        return Call(
            request=request,
            key=request.key,
            recording=self.recording,
            only=self.only,
            account=self.settings.account,
            budget_usd=self.settings.budget_usd,
            worst_usd=estimate(request, self.price(request), batch=batch).usd_at_most,
            purpose=message(purpose),
        )

    def cost(self, request: ModelRequest, answer: Reply | TooLong, *, batch: bool) -> tuple[float | None, str]:
        """What an answer cost, and by which price."""
        price = price_of(request.provider, request.model, self.settings.prices)
        if price is None:
            return None, ""
        return (0.0 if isinstance(answer, TooLong) else cost(answer.usage, price, batch=batch)), price.source

    def missing(self, request: ModelRequest, purpose: str) -> ReplayError:
        """What replay says when it lacks an answer."""
        return ReplayError(
            f"ledger.mode=replay, and {self.path} has no answer of {request.model} ({request.provider}) for "
            f"'{message(purpose)}' (key {request.key}); bring a recording in with 'm3i ledger import FILE', or call "
            "with ledger.mode=live"
        )

    async def check_short(self, short: Short, purpose: str) -> None:
        """Raises BudgetError unless waiting can help: calls in flight may turn out cheaper than their worst case."""
        left = {} if short.for_good else await self.do(batch_rows.unattended, self.settings.account)
        if short.for_good or (left and not left.keys() & self.polling):
            raise self._over_budget(short, purpose, sorted(left.values()))

    def _over_budget(self, short: Short, purpose: str, left: Sequence[str]) -> BudgetError:
        """What is said when the budget does not cover the next call.

        Args:
            short: The sums.
            purpose: Of the call.
            left: Batches that nobody waits for, where they hold what is reserved.
        """
        totals, settings = short.totals, self.settings
        uncertain = f", up to ${totals.uncertain:.4f} more on calls without an answer" if totals.uncertain else ""
        holder = f"batches that no run waits for ({', '.join(left)})" if left else "calls in flight"
        reserved = f", ${totals.reserved:.4f} is reserved for {holder}" if totals.reserved else ""
        collect = "Run again what submitted them, with mode=batch, to collect them; or raise" if left else "Raise"
        return BudgetError(
            f"ledger.budget_usd = {settings.budget_usd:g} is too little to go on: account '{settings.account}' has "
            f"spent ${totals.paid:.4f}{uncertain}{reserved}, and the next step, '{purpose}', could cost up to "
            f"${short.worst_usd:.4f}; nothing was sent for it, and finished calls are kept. {collect} "
            "ledger.budget_usd, or count from zero under another ledger.account"
        )


def required_price(provider: str, model: str, settings: LedgerSettings) -> Price | None:
    """What a model costs; None without a budget and without a price.

    Raises:
        ConfigError: there is a budget and no price to hold against it.
    """
    price = price_of(provider, model, settings.prices)
    if price is None and settings.budget_usd is not None:
        name = model.replace(":", "\\:")  # as Hydra wants it
        raise ConfigError(
            f"no price is known for {model} ({provider}; price table: {price_source()}), so ledger.budget_usd = "
            f"{settings.budget_usd:g} cannot be kept; give its price in USD per million tokens, "
            f'"ledger.prices={{{name}: {{input: 3, output: 15}}}}", or set ledger.budget_usd=null'
        )
    return price


def given(stored: Stored, *, reused: bool) -> Answer | TooLong:
    """What the ledger holds, as it is handed out."""
    if isinstance(stored.reply, TooLong):
        return stored.reply
    return Answer(reply=stored.reply, cost_usd=stored.cost_usd, reused=reused)


def cancel_later() -> None:
    """Lets a cancellation that was held back take effect at this task's next wait."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()  # it is counted again below
    task.cancel()


class Looks:
    """Waits between two looks, longer each time."""

    def __init__(self, *, longest_s: float = LONGEST_LOOK_S) -> None:
        self._next, self._longest = SHORTEST_LOOK_S, longest_s

    async def wait(self) -> None:
        """Sleeps."""
        await asyncio.sleep(self._next)
        self._next = min(self._longest, self._next * 1.5)
