"""Makes one call: waits for its turn, sends it, retries it, records the answer.

    place among the active calls → limiter's permit → reservation → send → answer or failed attempt → (wait, retry)

Each attempt makes its own reservation. A call that waits for its next attempt is not in flight: another process may
make it, and its share of the budget is free.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from m3i.errors import ConfigError
from m3i.ledger import answers, calls
from m3i.ledger.answers import Call, Stored
from m3i.ledger.calls import Busy, Reserved, Short
from m3i.ledger.context import Context, Looks, cancel_later
from m3i.ledger.database import Database
from m3i.ledger.faults import cleaned, fault_of, wait_s
from m3i.ledger.limiter import Limiter, Permit, Window
from m3i.ledger.outcomes import OutageError
from m3i.ledger.request import CallError, LoadedLate, ModelRequest, Provider, Reply, TooLong, Transient

GRACE_S = 30.0
"""How long a call whose task is cancelled in flight (Ctrl-C) may still take to be answered and recorded, since it is
paid for. A second cancellation gives it up at once."""
ENDING_S = 1.0
"""How long a client may take to close its connection after its time is up."""


class Lane:
    """The calls to one model in one event loop."""

    def __init__(self, concurrency: int) -> None:
        self.in_play = asyncio.Semaphore(concurrency)
        """Held by calls in flight or waiting for a retry; the others have not begun, and neither has their deadline."""
        self.limiter = Limiter(Window(cap=concurrency))


class Elsewhere(Exception):
    """The same call is in flight in another process or in a batch."""

    def __init__(self, busy: Busy) -> None:
        super().__init__("in flight elsewhere")
        self.busy = busy


@dataclass
class Journey:
    """The state of one call over its attempts."""

    provider: Provider
    call: Call
    lane: Lane
    failed: int = 0
    """Attempts that have ended without an answer so far."""
    last: Transient | None = None
    """The error of the last failed attempt, if it may be retried."""
    made: bool = False
    """Whether this process made the call that was answered."""
    began: float | None = field(default=None)
    """Monotonic time at which the first attempt began, in seconds; None before it."""

    def elapsed_s(self) -> float:
        """Returns the seconds since the first attempt began."""
        return 0.0 if self.began is None else time.monotonic() - self.began


class Sender:
    """Makes single calls."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings

    async def answer(self, journey: Journey) -> Stored:
        """Returns the answer to a call, whether this process or another one makes it.

        Raises:
            CallError, BudgetError, OutageError, ConfigError: As in `Ledger.ask`.
        """
        looks = Looks()
        while True:
            try:
                async with journey.lane.in_play:
                    return await self._retrying(journey)
            except Elsewhere as elsewhere:
                busy = elsewhere.busy
            if busy.batch is not None:
                await self._context.do(refuse_orphan, busy.batch, frozenset(self._context.polling))
            await looks.wait()

    async def _retrying(self, journey: Journey) -> Stored:
        """Attempts the call until it is answered or its deadline passes."""
        deadline_s = self._settings.deadline_s

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            assert isinstance(error, Transient)
            return wait_s(error, journey.failed)

        def stop(state: RetryCallState) -> bool:
            return journey.elapsed_s() + state.upcoming_sleep >= deadline_s

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Transient), wait=wait, stop=stop, sleep=asyncio.sleep, reraise=True
        )
        try:
            return await retrying(self._attempt, journey)
        except Transient as error:
            raise self._outage(journey, journey.last or error) from None

    async def _attempt(self, journey: Journey) -> Stored:
        """Makes one attempt as soon as it may be sent."""
        looks = Looks()
        while True:
            async with journey.lane.limiter.permit() as permit:
                if journey.elapsed_s() >= self._settings.deadline_s:
                    raise Transient("no turn for another attempt came up before the deadline")
                claimed = await self._context.do(calls.claim, journey.call)
                if isinstance(claimed, Reserved):
                    if await self._may_send(claimed, permit):
                        return await self._send(journey, claimed, permit)
                    continue
            if isinstance(claimed, Stored):
                return claimed
            if isinstance(claimed, Busy):
                raise Elsewhere(claimed)
            assert isinstance(claimed, Short)
            await self._context.check_short(claimed, journey.call.purpose)
            await looks.wait()  # calls in flight may turn out cheaper than their worst case

    async def _may_send(self, reserved: Reserved, permit: Permit) -> bool:
        """Returns whether the call may still be sent; releases its reservation if not, or if the task was cancelled."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await self._context.do(calls.release, reserved)
            raise
        if permit.held_up:
            await self._context.do(calls.release, reserved)
            return False
        return True

    async def _send(self, journey: Journey, reserved: Reserved, permit: Permit) -> Stored:
        """Sends a reserved call and settles the reservation, whatever the outcome."""
        context, call = self._context, journey.call
        await self._load(journey.provider, reserved)
        began = time.monotonic()
        journey.began = began if journey.began is None else journey.began
        limit_s = min(self._settings.timeout_s, self._settings.deadline_s - journey.elapsed_s())
        answer: Reply | TooLong
        try:
            answer = answers.clean_reply(await sent(journey.provider, call.request, limit_s))
        except TooLong as error:
            answer = error
            cleaned(error)
        except RecursionError:
            deep = Transient("the response is nested too deeply to be parsed", status=200, maybe_billed=True)
            await self._failed(journey, reserved, permit, deep)
            raise deep from None
        except BaseException as error:
            await self._failed(journey, reserved, permit, error)
            raise
        permit.answered()
        latency_s = time.monotonic() - began
        cost_usd, source = context.cost(call.request, answer, batch=False)
        await context.do(
            *(calls.record, reserved, call, answer), cost_usd=cost_usd, price_source=source, latency_s=latency_s
        )
        journey.made = True
        context.counting.made(call.request, answer, cost_usd, latency_s)
        return Stored(reply=answer, cost_usd=cost_usd)

    async def _load(self, provider: Provider, reserved: Reserved) -> None:
        """Loads the client. If that fails, releases the reservation, since nothing was sent."""
        if isinstance(provider, LoadedLate):
            try:
                await provider.load_client()
            except BaseException as error:
                await self._context.do(calls.release, reserved)
                if isinstance(error, CallError):
                    cleaned(error)
                raise

    async def _failed(self, journey: Journey, reserved: Reserved, permit: Permit, error: BaseException) -> None:
        """Counts and records an attempt that ended in an error."""
        journey.failed += 1
        fault = fault_of(error)
        if isinstance(error, CallError):
            cleaned(error)
        journey.last = error if isinstance(error, Transient) else None
        if journey.last and journey.last.overloaded:
            permit.overloaded(journey.last.retry_after_s)
        counting = self._context.counting
        counting.of(journey.call.request).retries[fault.kind] += 1
        if fault.maybe_billed:
            counting.uncertain_usd += journey.call.worst_usd or 0.0
        await self._context.do(calls.fail, reserved, journey.call, fault)

    def _outage(self, journey: Journey, error: Transient) -> OutageError:
        """Returns the error to raise for a call that has failed until its deadline."""
        request = journey.call.request
        attempts = f"{journey.failed} attempt{'s' if journey.failed != 1 else ''} in {journey.elapsed_s():.0f} s"
        why = f"ledger.deadline_s = {self._settings.deadline_s:g} leaves no time for another"
        if error.retry_after_s:
            why = f"the provider asks for a wait of {error.retry_after_s:.0f} s, and {why}"
        return OutageError(
            f"{request.model} ({request.provider}) gave no answer to '{journey.call.purpose}': {attempts}; the last "
            f"failed with: {error.message}; {why}. Answered calls are kept: run the same command again to continue"
        )


async def sent(provider: Provider, request: ModelRequest, limit_s: float) -> Reply:
    """Sends a request once. Returns or raises within `limit_s` (plus `ENDING_S` to close), whatever the client does.

    The client runs in a separate task, so that a reply that has arrived is never lost to a timeout or a cancellation.
    A cancelled caller waits up to `GRACE_S` for the reply; its cancellation takes effect afterwards.
    """
    sending = asyncio.create_task(provider.send(request, timeout_s=limit_s))
    sending.add_done_callback(_look_at)
    given_up = False
    try:
        await asyncio.wait({sending}, timeout=limit_s)
    except asyncio.CancelledError:
        try:
            await asyncio.wait({sending}, timeout=min(GRACE_S, limit_s))
        except asyncio.CancelledError:
            given_up = True
        if given_up or not sending.done():
            sending.cancel()
            raise
        cancel_later()
        return sending.result()
    if not sending.done():
        sending.cancel()
        cancelled = await _wait_for_end(sending)
        if cancelled:
            cancel_later()
        if not sending.done() or sending.cancelled():
            raise Transient(f"no whole answer within {limit_s:.0f} s (ledger.timeout_s)", maybe_billed=True)
    return sending.result()


async def _wait_for_end(sending: asyncio.Task[Reply]) -> bool:
    """Gives a cancelled client time to close; returns whether the caller was cancelled meanwhile."""
    try:
        await asyncio.wait({sending}, timeout=ENDING_S)
    except asyncio.CancelledError:
        return True
    return False


def _look_at(sending: asyncio.Task[Reply]) -> None:
    """Retrieves an error that nobody waits for any more, so that asyncio does not report it."""
    if not sending.cancelled():
        sending.exception()


# -- on the database thread -------------------------------------------------------------------


def refuse_orphan(db: Database, batch: int, polling: frozenset[int]) -> None:
    """Raises ConfigError if no process polls the batch that holds a call: the call would wait for it forever."""
    with db.reading() as connection:
        row = connection.execute(
            "SELECT name, owner FROM batches WHERE id = ? AND state IN ('submitting', 'working')", (batch,)
        ).fetchone()
    if row is None or (row["owner"] == db.owners.id and batch in polling):
        return
    if row["owner"] != db.owners.id and not db.gone([row["owner"]]):
        return
    raise ConfigError(
        f"this call is part of the batch {row['name']}, which an earlier run submitted and did not collect; run with "
        "the component's mode=batch to collect it (nothing is paid twice), or give it up with "
        f"'m3i ledger abandon {row['name']}'"
    )
