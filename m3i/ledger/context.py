"""What single calls and batches share: settings, the database thread, counts, prices."""

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
"""Waits between checks on what another task or process has in flight grow from the shortest to the longest."""


@dataclass
class Context:
    """One open ledger, for the modules that make calls."""

    settings: LedgerSettings
    path: Path
    counting: Counting
    note: Callable[[str], None] = lambda text: None
    """Called with a message for the user about what the run is waiting for."""
    polling: set[int] = field(default_factory=set)
    """Rows of the batches that this process is waiting for."""
    recording: str = ""
    _thread: ThreadPoolExecutor | None = None
    _db: Database | None = None

    @property
    def only(self) -> bool:
        """Whether only answers of this recording count."""
        return self.settings.mode is LedgerMode.record

    @property
    def is_open(self) -> bool:
        """Whether the file has been opened."""
        return self._thread is not None

    # -- the database thread ------------------------------------------------------------------

    def submit(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Runs `function(database, ...)` on the one thread that holds the connection."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="m3i-ledger")
        return self._thread.submit(lambda: function(self._opened(), *args, **kwargs))

    async def do(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Does the same and awaits the result. A cancellation that arrives meanwhile takes effect afterwards."""
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
        """Raises ConfigError for a default path on a network file system: several machines would damage the file."""
        found = "" if self.settings.path or self.settings.mode is LedgerMode.replay else network_type(self.path)
        if found:
            raise ConfigError(
                f"the ledger {self.path} would be on a network file system ({found}), where SQLite is safe only from "
                f"one machine; set ledger.path to a file on a local disk, or give ledger.path={self.path} if all runs "
                "that use it are on one machine"
            )

    def _opened(self) -> Database:
        if self._db is None:
            self.check_place()
            self._db = Database(self.path, create=self.settings.mode is not LedgerMode.replay)
        return self._db

    def close(self) -> None:
        """Ends the thread and closes the connection; the next use opens them again."""
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
        """Returns the model's price; None if unknown. Raises ConfigError if it is unknown and there is a budget."""
        return required_price(request.provider, request.model, self.settings)

    def call(self, request: ModelRequest, purpose: str, *, batch: bool = False) -> Call:
        """Returns a call ready to be reserved. Raises ConfigError if its text contains a key, or as `price` does."""
        blocks: list[Block] = [*request.system, *(block for turn in request.messages for block in turn.blocks)]
        for text in (*(block.text for block in blocks), str(dict(request.options)), str(request.schema)):
            if name := holds_secret(text, patterns=False):
                raise ConfigError(
                    f"the request '{message(purpose)}' contains the value of the environment variable {name}: it was "
                    "neither sent nor recorded; remove the value from the options or the text, or unset the variable "
                    "if it is not a secret"
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
        """Returns what an answer cost in US dollars (None if no price is known), and the source of the price."""
        price = price_of(request.provider, request.model, self.settings.prices)
        if price is None:
            return None, ""
        return (0.0 if isinstance(answer, TooLong) else cost(answer.usage, price, batch=batch)), price.source

    def missing(self, request: ModelRequest, purpose: str) -> ReplayError:
        """Returns the error to raise if replay lacks an answer."""
        return ReplayError(
            f"ledger.mode=replay, but {self.path} has no answer from {request.model} ({request.provider}) to "
            f"'{message(purpose)}' (key {request.key}); import a recording with 'm3i ledger import FILE', or make the "
            "call with ledger.mode=live"
        )

    async def check_short(self, short: Short, purpose: str) -> None:
        """Raises BudgetError unless waiting can help: calls in flight may end up cheaper than their worst case."""
        left = {} if short.for_good else await self.do(batch_rows.unattended, self.settings.account)
        if short.for_good or (left and not left.keys() & self.polling):
            raise self._over_budget(short, purpose, sorted(left.values()))

    def _over_budget(self, short: Short, purpose: str, left: Sequence[str]) -> BudgetError:
        """Returns the error to raise if the budget does not cover the next call.

        Args:
            short: The account's balance and the call's worst case.
            purpose: What the call is for.
            left: Names of the batches that hold the reservations, if no run is waiting for them.
        """
        totals, settings = short.totals, self.settings
        uncertain = f", up to ${totals.uncertain:.4f} more on calls without an answer" if totals.uncertain else ""
        holder = f"batches that no run is waiting for ({', '.join(left)})" if left else "calls in flight"
        reserved = f", ${totals.reserved:.4f} is reserved for {holder}" if totals.reserved else ""
        collect = "Repeat the run that submitted them, with mode=batch, to collect them; or raise" if left else "Raise"
        return BudgetError(
            f"ledger.budget_usd = {settings.budget_usd:g} is too little to continue: account '{settings.account}' has "
            f"spent ${totals.paid:.4f}{uncertain}{reserved}, and the next step, '{purpose}', could cost up to "
            f"${short.worst_usd:.4f}; nothing was sent for it, and finished calls are kept. {collect} "
            "ledger.budget_usd, or count from zero under another ledger.account"
        )


def required_price(provider: str, model: str, settings: LedgerSettings) -> Price | None:
    """Returns what a model costs; None if neither a price nor a budget is given.

    Raises:
        ConfigError: There is a budget but no known price.
    """
    price = price_of(provider, model, settings.prices)
    if price is None and settings.budget_usd is not None:
        name = model.replace(":", "\\:")  # Hydra needs colons escaped
        raise ConfigError(
            f"no price is known for {model} ({provider}; price table: {price_source()}), so ledger.budget_usd = "
            f"{settings.budget_usd:g} cannot be enforced; give its price in USD per million tokens, "
            f'"ledger.prices={{{name}: {{input: 3, output: 15}}}}", or set ledger.budget_usd=null'
        )
    return price


def given(stored: Stored, *, reused: bool) -> Answer | TooLong:
    """Returns a stored answer in the form that callers get."""
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
    """Waits between two checks, longer each time."""

    def __init__(self, *, longest_s: float = LONGEST_LOOK_S) -> None:
        self._next, self._longest = SHORTEST_LOOK_S, longest_s

    async def wait(self) -> None:
        """Sleeps until the next check."""
        await asyncio.sleep(self._next)
        self._next = min(self._longest, self._next * 1.5)
