"""Sends many requests at once, at half the price: submits, polls, collects, and resumes without submitting twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from m3i.config.settings import LedgerMode
from m3i.ledger import answers, batch_rows
from m3i.ledger.answers import Call, Stored
from m3i.ledger.batch_rows import Batch
from m3i.ledger.calls import Short
from m3i.ledger.context import LONGEST_LOOK_S, Context, Looks, given
from m3i.ledger.faults import cleaned, fault_of, wait_s
from m3i.ledger.outcomes import Answer, OutageError
from m3i.ledger.request import (
    AccountError,
    BatchProvider,
    BatchState,
    CallError,
    ModelRequest,
    Reply,
    RequestError,
    TooLong,
    Transient,
)

T = TypeVar("T")

ROUNDS = 3
"""Maximum batches that one request is sent in, if the provider lets it expire."""
FIND_LOOKS = 2
"""How often a batch that may have been submitted before a crash is looked up, `ledger.batch_poll_s` apart, before it
counts as never submitted: a provider's list of batches may lag."""


class BatchSender:
    """Sends requests in batches."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings

    async def ask(
        self,
        provider: BatchProvider,
        requests: Mapping[str, ModelRequest],
        *,
        purpose: str,
        tick: Callable[..., None],
    ) -> Mapping[str, Answer | TooLong]:
        """Returns the answers, as described in `Ledger.ask_batch`."""
        asked = {request.key: request for request in requests.values()}
        panel = _Panel(self._context, provider, asked, purpose)
        n_total = len(requests)

        def show() -> None:
            tick(sum(request.key in panel.answers for request in requests.values()), n_total)

        await panel.look(first=True)
        show()
        if panel.missing and self._settings.mode is LedgerMode.replay:
            raise self._context.missing(asked[panel.missing[0]], purpose)
        try:
            await panel.fill(show)
        finally:
            await panel.stop()
        return {id: panel.answers[request.key] for id, request in requests.items()}


class _Panel:
    """The state of one `ask_batch`."""

    def __init__(
        self, context: Context, provider: BatchProvider, asked: Mapping[str, ModelRequest], purpose: str
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._provider = provider
        self._asked = asked
        self._purpose = purpose
        self._calls: dict[str, Call] = {}
        self._rounds: Counter[str] = Counter()
        self._made: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._planning = asyncio.Lock()
        """Held while requests are freed or put into a batch: none is sent again after an error has ended the panel."""
        self._error: BaseException | None = None
        self.answers: dict[str, Answer | TooLong] = {}

    @property
    def missing(self) -> list[str]:
        """The keys without an answer."""
        return [key for key in self._asked if key not in self.answers]

    async def look(self, *, first: bool = False) -> None:
        """Picks up the answers that have arrived in the ledger, whoever made the calls."""
        context = self._context
        found = await context.do(answers.known_answers, self.missing, context.recording, only=context.only)
        for key, stored in found.items():
            self._take(key, stored, waited=not first)

    def _take(self, key: str, stored: Stored, *, waited: bool) -> None:
        made = key in self._made
        self.answers[key] = given(stored, reused=not made)
        if not made:
            self._context.counting.found(self._asked[key], stored.cost_usd, waited=waited)

    async def fill(self, show: Callable[[], None]) -> None:
        """Makes batches and follows them until every request has its answer."""
        looks = Looks(longest_s=max(LONGEST_LOOK_S, self._settings.batch_poll_s))
        missing = self.missing
        while missing:
            for key in missing:
                if key not in self._calls:
                    self._calls[key] = self._context.call(self._asked[key], self._purpose, batch=True)
            wanted = [self._calls[key] for key in missing]
            async with self._planning:
                if self._error is not None:
                    raise self._error
                step = await self._context.do(batch_rows.next_step, wanted, frozenset(self._context.polling))
                if isinstance(step, Batch):
                    self._start(step)
                    continue
            if isinstance(step, Short):
                await self._context.check_short(step, self._purpose)
            await self._wait(looks)
            await self.look()
            show()
            missing = self.missing

    def _start(self, batch: Batch) -> None:
        """Follows a batch in a separate task, since several may be open at once."""
        if not batch.adopted:
            self._rounds.update(batch.calls.keys())
            assert max(self._rounds[key] for key in batch.calls) <= ROUNDS
        self._context.polling.add(batch.id)
        self._running.add(asyncio.create_task(self._follow(batch)))

    async def _wait(self, looks: Looks) -> None:
        """Waits until one of this panel's batches ends, at most `ledger.batch_poll_s`; only briefly if none is open."""
        if not self._running:
            await looks.wait()
            return
        done, self._running = await asyncio.wait(
            self._running, timeout=self._settings.batch_poll_s, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Stops following open batches; the next run takes them over."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    # -- one batch ----------------------------------------------------------------------------

    async def _follow(self, batch: Batch) -> None:
        """Submits a batch unless it already was, waits until it ends, and records its results."""
        try:
            if batch.submitting:
                provider_id = await self._submit(batch)
                if not provider_id:
                    return
                batch = replace(batch, provider_id=provider_id)
            brought = await self._results(batch)
            while not brought.keys() & batch.calls.keys():  # another batch: `find` had to guess
                other = await self._found(batch, looks=1)
                if other in ("", batch.provider_id):
                    break
                batch = replace(batch, provider_id=other)
                brought = await self._results(batch)
            await self._collect(batch, brought)
        finally:
            self._context.polling.discard(batch.id)

    async def _results(self, batch: Batch) -> Mapping[str, Reply | CallError]:
        """Waits until a batch has ended; returns its results."""
        requests = f"{len(batch.calls)} request{'s' if len(batch.calls) != 1 else ''}"
        self._context.note(
            f"batch {batch.name} of {requests} is with {self._provider.name}; checking every "
            f"{self._settings.batch_poll_s:g} s. Ctrl-C stops waiting; run the same command again to resume"
        )
        while await self._persist(batch, lambda: self._provider.state(batch.provider_id)) is not BatchState.ENDED:
            await asyncio.sleep(self._settings.batch_poll_s)
        return await self._persist(batch, lambda: self._provider.collect(batch.provider_id))

    async def _submit(self, batch: Batch) -> str:
        """Submits a batch; returns the provider's id, or "" for one that a crash kept from being submitted."""
        context = self._context
        if batch.adopted:
            found = await self._found(batch, looks=FIND_LOOKS)
            if not found:
                await context.do(batch_rows.refused, batch, None)
            return found
        requests = {key: call.request for key, call in batch.calls.items()}
        may_be_there = False  # whether an attempt was sent and may have arrived

        async def attempt() -> str:
            nonlocal may_be_there
            if may_be_there and (found := await self._found(batch, looks=1)):
                return found
            before, may_be_there = may_be_there, True
            try:
                provider_id = await self._provider.submit(batch.name, requests)
            except CallError as error:
                may_be_there = before or (isinstance(error, Transient) and error.maybe_billed)
                raise
            await context.do(batch_rows.submitted, batch, provider_id)
            return provider_id

        try:
            return await self._persist(batch, attempt)
        except (OutageError, AccountError, RequestError) as error:
            if not may_be_there:
                await self._free(error, batch_rows.refused, batch, fault_of(error))
            raise

    async def _found(self, batch: Batch, *, looks: int) -> str:
        """Returns the provider's id of the batch submitted under this name; "" if there is none."""
        for look in range(looks):
            if look:
                await asyncio.sleep(self._settings.batch_poll_s)
            found = await self._persist(batch, lambda: self._provider.find(batch.name, frozenset(batch.calls)))
            if found:
                await self._context.do(batch_rows.submitted, batch, found)
                return found
        return ""

    async def _collect(self, batch: Batch, brought: Mapping[str, Reply | CallError]) -> None:
        """Records every outcome, then raises the first error that no further batch can fix."""
        context = self._context
        nothing = Transient(f"the batch {batch.name} has no result for it")
        outcomes: dict[str, Reply | CallError] = {}
        for key in batch.calls:
            outcome = brought.get(key, nothing)
            outcomes[key] = answers.clean_reply(outcome) if isinstance(outcome, Reply) else cleaned(outcome)
        answered = {k: o for k, o in outcomes.items() if isinstance(o, (Reply, TooLong))}
        costs = {k: context.cost(batch.calls[k].request, o, batch=True) for k, o in answered.items()}
        error = self._fatal(batch, outcomes)
        await self._free(error, batch_rows.collected, batch, outcomes, costs)
        self._made |= answered.keys()
        for key, outcome in answered.items():
            context.counting.made(batch.calls[key].request, outcome, costs[key][0], None)
        for key, outcome in outcomes.items():
            if key not in answered and isinstance(outcome, CallError):
                self._count(batch.calls[key], outcome)
        if error is not None:
            raise error

    async def _free(self, error: BaseException | None, change: Callable[..., None], *arguments: object) -> None:
        """Makes a change that frees requests; if an error ends the panel, none of them is sent again."""
        async with self._planning:
            self._error = self._error or error
            await self._context.do(change, *arguments)

    def _count(self, call: Call, error: CallError) -> None:
        fault = fault_of(error)
        self._context.counting.of(call.request).retries[fault.kind] += 1
        if fault.maybe_billed:
            self._context.counting.uncertain_usd += call.worst_usd or 0.0

    def _fatal(self, batch: Batch, outcomes: Mapping[str, Reply | CallError]) -> BaseException | None:
        """Returns the first outcome that no further batch can fix."""
        for key, outcome in outcomes.items():
            if isinstance(outcome, (AccountError, RequestError)):
                return outcome
            if isinstance(outcome, Transient) and self._rounds[key] >= ROUNDS:
                return OutageError(
                    f"{batch.calls[key].request.model} gave no answer to '{batch.calls[key].purpose}' in {ROUNDS} "
                    f"batches; the last failed with: {outcome.message}. Answered calls are kept: run the same command "
                    "again to continue, or with mode=each to continue without batches"
                )
        return None

    async def _persist(self, batch: Batch, step: Callable[[], Awaitable[T]]) -> T:
        """Runs one exchange with the provider, retrying transient failures until the deadline."""
        began, deadline_s = time.monotonic(), self._settings.deadline_s
        request = next(iter(batch.calls.values())).request

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            assert isinstance(error, Transient)
            self._context.counting.of(request).retries[fault_of(error).kind] += 1
            return wait_s(error, state.attempt_number)

        def stop(state: RetryCallState) -> bool:
            return time.monotonic() - began + state.upcoming_sleep >= deadline_s

        async def timed() -> T:
            try:
                async with asyncio.timeout(max(0.001, deadline_s - (time.monotonic() - began))):
                    return await step()
            except TimeoutError:
                raise Transient(f"no answer within {deadline_s:.0f} s", maybe_billed=True) from None

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Transient), wait=wait, stop=stop, sleep=asyncio.sleep, reraise=True
        )
        try:
            return await retrying(timed)
        except Transient as error:
            cleaned(error)
            raise OutageError(
                f"{request.provider} gave no answer about the batch {batch.name} within ledger.deadline_s = "
                f"{deadline_s:g}; the last attempt failed with: {error.message}. What was submitted stays submitted: "
                "run the same command again to continue"
            ) from None
        except (AccountError, RequestError) as error:
            cleaned(error)
            if batch.provider_id and isinstance(error, RequestError):
                error.args = (
                    f"{error}; the provider's id of the batch is {batch.provider_id}. If the provider no longer has "
                    f"it, give it up with 'm3i ledger abandon {batch.name}' and run the same command again, which asks "
                    "anew (the batch's worst case stays charged to the account)",
                )
            raise
