"""The ledger: every remote call passes through it; it records and counts each one and never pays twice for the same.

How it works, in short:

- A request's key is the hash of its content (m3i.ledger.request). Answers are stored under their keys in one SQLite
  file that runs and processes share.
- Identical requests in flight are one call. Tasks of one process share a future; processes share a *reservation*, a row
  that exists exactly while the call is in flight. A file lock, never a clock, tells whether its owner is alive.
- The transaction that makes a reservation also checks the budget. It must cover the sum of what was paid, the worst
  case of the other calls in flight, what may have been billed without an answer, and the worst case of this call.
- An attempt that was sent but has no answer (a timeout, a broken connection, a killed process) may have been billed:
  its worst case stays charged to the budget, as *uncertain*, and the request may be sent again.
- Only transient faults are retried, after jittered exponential waits or as long as the server asks, until a deadline on
  the monotonic clock. Each attempt has its own timeout.
- A reply that has arrived is recorded even if its task is cancelled.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from weakref import WeakKeyDictionary

from m3i.config.settings import LedgerMode, LedgerSettings
from m3i.errors import ConfigError, did_you_mean
from m3i.ledger import answers, calls
from m3i.ledger.batches import BatchSender
from m3i.ledger.calls import Totals
from m3i.ledger.context import Context, given
from m3i.ledger.database import Database
from m3i.ledger.outcomes import Answer, BudgetError, OutageError, ReplayError
from m3i.ledger.price_table import check_overrides
from m3i.ledger.prices import price_source
from m3i.ledger.request import BatchProvider, ModelRequest, Provider, TooLong
from m3i.ledger.single_call import Journey, Lane, Sender
from m3i.ledger.tally import Counting, Tally

__all__ = ["Answer", "BudgetError", "Ledger", "OutageError", "ReplayError", "Tally"]


class _Loop:
    """The state of one event loop."""

    def __init__(self) -> None:
        self.flights: dict[str, asyncio.Future[None]] = {}
        """Key → future that is done when the task asking for that key is."""
        self.lanes: dict[tuple[str, str], Lane] = {}
        self.opening = asyncio.Lock()


class Ledger:
    """The record of every remote call of a run."""

    def __init__(
        self, settings: LedgerSettings, *, default_path: Path, note: Callable[[str], None] = lambda text: None
    ) -> None:
        """Opens no file until first use.

        Args:
            settings: The options `ledger.*`.
            default_path: The file to use if `ledger.path` is empty.
            note: Called with a message for the user about what the run is waiting for, e.g. a batch.

        Raises:
            ConfigError: A price in `ledger.prices` is not usable.
        """
        check_overrides(settings.prices)
        path = Path(settings.path) if settings.path else default_path
        self._context = Context(settings=settings, path=path.expanduser().absolute(), counting=Counting(), note=note)
        self._settings = settings
        self._sender = Sender(self._context)
        self._batches = BatchSender(self._context)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()
        self._recording: str | None = None
        self._began = False
        self._last_totals = Totals(paid=0.0, reserved=0.0, uncertain=0.0)
        if settings.mode is LedgerMode.record:
            self._recording = settings.recording or uuid.uuid4().hex[:16]

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._context.path

    @property
    def recording(self) -> str:
        """The recording whose answers a live run reuses ("" if there is none yet); in record mode, this run's own.

        Raises:
            ConfigError: Outside record mode, `ledger.recording` names a recording that this ledger does not have.
        """
        if self._recording is None:
            there = self.path.is_file()
            self._recording = self._context.submit(chosen_recording, self._settings).result() if there else ""
            if not there and self._settings.recording:
                raise ConfigError(_no_recording(self._settings.recording, self.path, []))
        return self._recording

    async def ask(self, provider: Provider, request: ModelRequest, *, purpose: str) -> Answer:
        """Returns the answer to one request, from the ledger or from the provider.

        Args:
            provider: The client; used only if the ledger does not have the answer.
            request: The call.
            purpose: What the call is for, in messages, e.g. `observe claude: trace 12ab`.

        Raises:
            TooLong: The request exceeds the model's context; recorded as its answer.
            AccountError, RequestError: The provider refuses this key, or this kind of request.
            BudgetError: The call could cost more than is left of the budget.
            ReplayError: In replay mode, the answer is not in the ledger.
            OutageError: The call failed until its deadline.
            ConfigError: There is a budget but no known price, or the request's text contains a key.
            StoreError: The ledger cannot be read or written.
        """
        assert self._settings.mode is not LedgerMode.estimate, "an estimate asks nothing"
        here = self._here()
        key, waited = request.key, False
        while (flight := here.flights.get(key)) is not None:
            waited = True
            await asyncio.wait({flight})
            if (error := flight.exception()) is not None:
                raise error
        flight = here.flights[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await self._answer(provider, request, purpose, here, waited=waited)
        except asyncio.CancelledError:
            raise  # other tasks that wait for it ask for themselves
        except BaseException as error:
            if not isinstance(error, TooLong):
                flight.set_exception(error)
                flight.exception()  # retrieved here, since nobody may be waiting for it
            raise
        else:
            return answer
        finally:
            del here.flights[key]
            if not flight.done():
                flight.set_result(None)

    async def _answer(
        self, provider: Provider, request: ModelRequest, purpose: str, here: _Loop, *, waited: bool
    ) -> Answer:
        context = self._context
        await self._begin(request, purpose)
        stored = await context.do(answers.find, request.key, context.recording, only=context.only)
        made = False
        if stored is None:
            if self._settings.mode is LedgerMode.replay:
                raise context.missing(request, purpose)
            call = context.call(request, purpose)
            place = (request.provider, request.model)
            lane = here.lanes.setdefault(place, Lane(self._settings.concurrency))
            journey = Journey(provider=provider, call=call, lane=lane)
            stored = await self._sender.answer(journey)
            made, waited = journey.made, True
        if not made:
            context.counting.found(request, stored.cost_usd, waited=waited)
        answer = given(stored, reused=not made)
        if isinstance(answer, TooLong):
            raise answer
        return answer

    async def ask_batch(
        self,
        provider: BatchProvider,
        requests: Mapping[str, ModelRequest],
        *,
        purpose: str,
        tick: Callable[..., None],
    ) -> Mapping[str, Answer | TooLong]:
        """Returns the answers to many requests, at batch prices; those not in the ledger are asked for in batches.

        A run that was stopped, in whatever way, resumes its batches when started again and submits nothing twice.

        Args:
            provider: The client.
            requests: Id → request.
            purpose: What the calls are for, in messages.
            tick: Called as `tick(done, total)`.

        Raises:
            The errors of `ask`, except TooLong, which is returned as an answer here.
        """
        assert self._settings.mode is not LedgerMode.estimate, "an estimate asks nothing"
        for request in requests.values():
            await self._begin(request, purpose)
            break
        return await self._batches.ask(provider, requests, purpose=purpose, tick=tick)

    def known(self, keys: Iterable[str]) -> set[str]:
        """Returns those of the keys that need no call. Creates no file. Raises StoreError, ConfigError."""
        self._context.check_place()
        recording = self.recording  # refuses an unknown name also where there is no file yet
        if not self.path.is_file():
            return set()
        return set(self._context.submit(answers.known_answers, keys, recording, only=self._context.only).result())

    @property
    def paid_usd(self) -> float | None:
        """What this process's calls of known price have cost so far, in US dollars; None before the first such call."""
        made = [row["cost_usd"] for row in self._context.counting.rows() if row["made"]]
        known = [cost for cost in made if cost is not None]
        return sum(known) if known else None

    def tally(self) -> Tally:
        """Returns the totals of this process's calls so far."""
        if self._context.is_open or self.path.is_file():
            self._last_totals = self._context.submit(calls.totals, self._settings.account).result()
        context = self._context
        return Tally(
            rows=context.counting.rows(),
            uncertain_usd=context.counting.uncertain_usd,
            price_source=price_source(),
            recording=self.recording,
            mode=self._settings.mode.value,
            account=self._settings.account,
            spent_in_account_usd=self._last_totals.paid,
            uncertain_in_account_usd=self._last_totals.uncertain,
        )

    def close(self) -> None:
        """Closes the connection; the next use opens it again."""
        self._context.close()

    async def _begin(self, request: ModelRequest, purpose: str) -> None:
        """Opens the file and determines which recording this run belongs to, on the first call only."""
        async with self._here().opening:
            if self._began:
                return
            if self._settings.mode is LedgerMode.replay and not self.path.is_file():
                raise self._context.missing(request, purpose)
            if self._recording is None:
                self._recording = await self._context.do(chosen_recording, self._settings)
            self._context.recording = self._recording
            if self._settings.mode is not LedgerMode.replay:
                await self._context.do(begin, self._recording if self._context.only else None)
            self._began = True

    def _here(self) -> _Loop:
        return self._loops.setdefault(asyncio.get_running_loop(), _Loop())


# -- on the database thread -------------------------------------------------------------------


def chosen_recording(db: Database, settings: LedgerSettings) -> str:
    """Returns the recording that a live or replaying run belongs to. Raises ConfigError for an unknown name."""
    if settings.recording and settings.recording not in (known := db.recordings()):
        raise ConfigError(_no_recording(settings.recording, db.path, known))
    return settings.recording or db.current_recording()


def begin(db: Database, recording: str | None) -> None:
    """Books what dead processes had in flight; if this run makes a recording, makes it the current one."""
    calls.reap(db)
    if recording is not None:
        db.begin_recording(recording)


def _no_recording(name: str, path: Path, known: list[str]) -> str:
    there = f"Recordings: {', '.join(known)}" if known else "It has none"
    return (
        f"ledger.recording = '{name}': {path} has no such recording{did_you_mean(name, known)} {there}; "
        "ledger.mode=record makes a new one"
    )
