"""Asks a model about many items: one first, then all others concurrently; allows one repair turn; counts everything.

The first request is sent alone, so that the provider's prompt cache holds the shared prefix before the others arrive. A
reply that cannot be parsed gets one repair turn, which says what was wrong. If that fails too, the item counts as
missing; so does an item with a refusal, a reply cut by the length limit, or a prompt that is too long. A missing item
never counts as "no failure".

Errors that concern the whole run (key, budget, outage, a missing recording) stop the panel: no new item is started,
calls in flight finish and are recorded, then the error is raised (m3i.llm.calls). Ctrl-C does the same.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from m3i.artifacts import CallFacts
from m3i.errors import ConfigError, StageError
from m3i.interfaces import Tick, no_tick
from m3i.ledger.request import BatchProvider, Block, Message, ModelRequest, Provider, Stop, TooLong
from m3i.llm.calls import Calls
from m3i.llm.prompt_fields import Prompt, shown

if TYPE_CHECKING:
    from m3i.ledger import Answer, Ledger

T = TypeVar("T")

MAX_TASKS = 256
"""Maximum items worked on at once, most of them waiting for their turn in the ledger."""
MAX_ECHO_CHARS = 20_000
"""Maximum characters of an invalid reply quoted in the repair prompt."""


class CallMode(str, Enum):
    """How requests are sent: one call each, or in batches."""

    each = "each"
    batch = "batch"


class ReplyError(ValueError):
    """A reply that is not what was asked for. The message is sent to the model and contains no text of the reply."""


@dataclass(frozen=True, kw_only=True)
class Ask(Generic[T]):
    """One item: what to ask, and how to parse the reply."""

    id: str
    request: ModelRequest
    read: Callable[[str], T]
    """Turns the reply's text into a value. Raises ReplyError, whose message becomes part of the repair turn."""
    repair: Callable[[ReplyError], str] = lambda error: f"That reply could not be used: {error}. Reply again."
    """Returns the user's turn after an invalid reply."""
    prompt: Prompt | None = None
    """The request's prompt in parts, template and data, for a model that is tokenised locally."""


@dataclass(frozen=True, kw_only=True)
class Asked(Generic[T]):
    """The outcome of all items: each id is in either `values` or `missing`."""

    values: Mapping[str, T]
    missing: Mapping[str, str]
    """Item id → why there is no value."""
    facts: CallFacts


async def ask_all(
    ledger: Ledger,
    provider: Provider,
    asks: Sequence[Ask[T]],
    *,
    mode: CallMode = CallMode.each,
    purpose: str,
    facts: CallFacts | None = None,
    tick: Tick = no_tick,
) -> Asked[T]:
    """Asks for all items through the ledger.

    Args:
        ledger: Records every answer and limits how many calls are in flight.
        provider: The client that sends.
        asks: Items with distinct ids. Items with the same request share one call.
        mode: One call per item, or the provider's batches: one for first replies and one for repair turns.
        purpose: What the calls are for, in messages, e.g. `observe claude-x`; the item's id is appended.
        facts: Provider, model, family and prompt, to which the counts are added.
        tick: Called with the number of finished items and the total.

    Raises:
        StageError: There were items but none got a valid reply; the message gives the most common reason.
        M3IError: The errors of the ledger that concern the whole run.
    """
    panel = _Panel(ledger, provider, asks, purpose, tick)
    if mode is CallMode.batch:
        await panel.run_batch()
    else:
        await panel.run_each()
    if asks and not panel.values:
        reason, count = Counter(panel.missing.values()).most_common(1)[0]
        raise StageError(f"{purpose}: none of {len(asks)} items got a valid reply; {count} times: {reason}")
    return Asked(values=panel.values, missing=panel.missing, facts=panel.tally.facts(facts or CallFacts()))


def together(items: Sequence[T], key: Callable[[T], str]) -> list[T]:
    """Returns the items grouped by key, with keys and items in order of first appearance."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return [item for group in groups.values() for item in group]


@dataclass
class _Item(Generic[T]):
    """All asks that share one request."""

    request: ModelRequest
    asks: list[Ask[T]]
    """The asks still without a value."""
    repaired: bool = False


class _Panel(Generic[T]):
    """One run of `ask_all`."""

    def __init__(self, ledger: Ledger, provider: Provider, asks: Sequence[Ask[T]], purpose: str, tick: Tick) -> None:
        self.ledger, self.provider, self.purpose, self.tick = ledger, provider, purpose, tick
        self.calls = Calls(ledger, provider)
        self.total = len(asks)
        self.values: dict[str, T] = {}
        self.missing: dict[str, str] = {}
        self.tally = Tally()
        items: dict[str, _Item[T]] = {}
        for ask in asks:
            items.setdefault(ask.request.key, _Item(ask.request, [])).asks.append(ask)
        self.items = deque(items.values())

    # -- one call per item --

    async def run_each(self) -> None:
        """Asks about the first item alone, then about all others concurrently."""
        others, self.items = self.items, deque(self.items.popleft() for _ in range(min(1, len(self.items))))
        await self.calls.work(len(self.items), self._work)
        self.items = others
        await self.calls.work(min(len(self.items), MAX_TASKS), self._work)
        if self.calls.stopped is not None:
            raise self.calls.stopped

    async def _work(self) -> None:
        while self.items and self.calls.stopped is None:
            item: _Item[T] | None = self.items.popleft()
            while item is not None and self.calls.stopped is None:
                try:
                    outcome = await self.calls.ask(item.request, f"{self.purpose}: {item.asks[0].id}")
                    item = self._take(item, outcome)
                except asyncio.CancelledError:
                    if self.calls.stopped is None:
                        raise
                    return  # the call had not been sent
                except Exception as error:  # of any kind: calls in flight finish first
                    self.calls.stop(error)
                    return

    # -- batches --

    async def run_batch(self) -> None:
        """Sends at most two batches: first requests, then repair turns."""
        if not isinstance(self.provider, BatchProvider):
            raise ConfigError(f"mode = batch: {self.provider.name} has no batch API here; use mode=each")
        waiting = list(self.items)
        while waiting:
            requests = {item.request.key: item.request for item in waiting}
            outcomes = await self.ledger.ask_batch(self.provider, requests, purpose=self.purpose, tick=self.tick)
            after = [self._take(item, outcomes[item.request.key]) for item in waiting]
            waiting = [item for item in after if item is not None]

    # -- replies --

    def _take(self, item: _Item[T], outcome: Answer | TooLong) -> _Item[T] | None:
        """Handles an outcome; returns the repair turn if one is due."""
        if reason := self._unusable(item, outcome):
            self.missing.update({ask.id: reason for ask in item.asks})
            self._report()
            return None
        assert not isinstance(outcome, TooLong)
        repair = self._read(item, outcome.reply.text)
        self._report()
        return repair

    def _unusable(self, item: _Item[T], outcome: Answer | TooLong) -> str:
        """Counts an outcome; returns why it has no text to parse, or "" if it has."""
        if isinstance(outcome, TooLong):
            return f"the prompt is too long for the model: {shown(str(outcome)[:300])}"
        self.tally.add(outcome)
        if outcome.reply.stop is Stop.REFUSAL:
            return "the model or its provider's filter refused"
        if outcome.reply.stop is Stop.MAX_TOKENS:
            return f"the reply was cut at max_tokens={item.request.max_tokens}; raise it"
        return ""

    def _read(self, item: _Item[T], text: str) -> _Item[T] | None:
        failed: list[tuple[Ask[T], ReplyError]] = []
        for ask in item.asks:
            try:
                self.values[ask.id] = ask.read(text)
            except ReplyError as error:
                failed.append((ask, error))
        if failed and not item.repaired:
            self.tally.n_repairs += 1
            first, fault = failed[0]
            request = _with_repair(item.request, text, first.repair(fault))
            return _Item(request, [ask for ask, _ in failed], repaired=True)
        for ask, fault in failed:
            self.tally.n_invalid += 1
            self.missing[ask.id] = f"no valid reply after one repair turn: {fault}"
        return None

    def _report(self) -> None:
        self.tick(len(self.values) + len(self.missing), self.total)


def _with_repair(request: ModelRequest, reply: str, turn: str) -> ModelRequest:
    """Returns the same request followed by the invalid reply and the turn that asks for another one."""
    said = shown(reply[:MAX_ECHO_CHARS]).strip() or "(an empty reply)"
    turns = (("assistant", said), ("user", turn))
    messages = (Message(role=role, blocks=(Block(text=text),)) for role, text in turns)
    return replace(request, messages=(*request.messages, *messages))


@dataclass
class Tally:
    """Totals over replies."""

    answered_by: Counter[str] = field(default_factory=Counter)
    n_repairs: int = 0
    n_invalid: int = 0
    n_refused: int = 0
    n_truncated: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    costs_usd: list[float] = field(default_factory=list)
    n_unpriced: int = 0

    def add(self, answer: Answer) -> None:
        """Counts one reply, new or reused."""
        reply = answer.reply
        self.answered_by[reply.model] += 1
        self.n_refused += reply.stop is Stop.REFUSAL
        self.n_truncated += reply.stop is Stop.MAX_TOKENS
        self.input_tokens += reply.usage.input_tokens
        self.cache_read_tokens += reply.usage.cache_read_tokens
        self.cache_write_tokens += reply.usage.cache_write_tokens
        self.output_tokens += reply.usage.output_tokens
        self.costs_usd.append(answer.cost_usd or 0.0)
        self.n_unpriced += answer.cost_usd is None

    def facts(self, of: CallFacts) -> CallFacts:
        """Returns `of` with these totals filled in."""
        sums = {name: value for name, value in vars(self).items() if name not in ("answered_by", "costs_usd")}
        return replace(
            of,
            answered_by=dict(sorted(self.answered_by.items())),
            n_calls=self.answered_by.total(),
            cost_usd=math.fsum(self.costs_usd),  # exact, so the order in which replies arrive does not matter
            **sums,
        )
