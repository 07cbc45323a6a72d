"""Asks a model for many items at once: first one alone, then the rest; one repair turn; everything counted.

The first request goes alone, so that the provider's prompt cache holds the shared prefix before the others arrive. A
reply that cannot be read gets one more turn, which says what was wrong; a second one counts the item as missing. So do
a refusal, a reply that the length limit ended, and a prompt that is too long. A missing item is never "no failure".

Errors that concern the whole run (key, budget, outage, a missing recording) stop the panel: no new item is begun,
calls under way finish and are recorded, then the error goes on (m3i.llm.calls). So it is on Ctrl-C.
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
"""Items in work at once, most of them waiting for the ledger's leave to send."""
MAX_ECHO_CHARS = 20_000
"""Of an invalid reply, how much its repair turn repeats."""


class CallMode(str, Enum):
    """How requests are sent."""

    each = "each"
    batch = "batch"


class ReplyError(ValueError):
    """A reply that is not what was asked for; the message is told to the model. It holds no text of the reply."""


@dataclass(frozen=True, kw_only=True)
class Ask(Generic[T]):
    """One item: what to ask, and how to read the reply."""

    id: str
    request: ModelRequest
    read: Callable[[str], T]
    """The reply's text to a value. Raises ReplyError, whose message becomes the repair turn."""
    repair: Callable[[ReplyError], str] = lambda error: f"That reply could not be used: {error}. Reply again."
    """The user's turn after an invalid reply."""
    prompt: Prompt | None = None
    """The request's prompt as template and data parts, for a model that tokenises here."""


@dataclass(frozen=True, kw_only=True)
class Asked(Generic[T]):
    """What came of all items: each id is in `values` or in `missing`."""

    values: Mapping[str, T]
    missing: Mapping[str, str]
    """Item → why there is no value."""
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
        ledger: Keeps every answer; it limits how many calls are in flight.
        provider: Sends.
        asks: Items with distinct ids. Items with the same request share one call.
        mode: One call an item, or the provider's batches: one for first replies and one for repair turns.
        purpose: Words for people, e.g. `observe claude-x`; the item's id is added.
        facts: Provider, model, family and prompt; the counts are added to it.
        tick: Progress in items.

    Raises:
        StageError: Items were asked for and none got a valid reply; the message gives the commonest reason.
        M3IError: The ledger's errors that concern the whole run.
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
    """Items of one key next to each other, keys and items in the order in which they first come."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return [item for group in groups.values() for item in group]


@dataclass
class _Item(Generic[T]):
    """All asks with one request."""

    request: ModelRequest
    asks: list[Ask[T]]
    """Those still without a value."""
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

    # -- one call an item --

    async def run_each(self) -> None:
        """The first item alone, then all others together."""
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
                    return  # it had not been sent
                except Exception as error:  # whatever it is, calls under way are finished first
                    self.calls.stop(error)
                    return

    # -- batches --

    async def run_batch(self) -> None:
        """Two batches at most: first replies, then repair turns."""
        if not isinstance(self.provider, BatchProvider):
            raise ConfigError(f"mode = batch: {self.provider.name} offers no batches here; use mode=each")
        waiting = list(self.items)
        while waiting:
            requests = {item.request.key: item.request for item in waiting}
            outcomes = await self.ledger.ask_batch(self.provider, requests, purpose=self.purpose, tick=self.tick)
            after = [self._take(item, outcomes[item.request.key]) for item in waiting]
            waiting = [item for item in after if item is not None]

    # -- replies --

    def _take(self, item: _Item[T], outcome: Answer | TooLong) -> _Item[T] | None:
        """Reads an outcome. Returns the repair turn, where one is due."""
        if reason := self._unusable(item, outcome):
            self.missing.update({ask.id: reason for ask in item.asks})
            self._report()
            return None
        assert not isinstance(outcome, TooLong)
        repair = self._read(item, outcome.reply.text)
        self._report()
        return repair

    def _unusable(self, item: _Item[T], outcome: Answer | TooLong) -> str:
        """Why an outcome has no text to read; empty where it has. Counts it."""
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
    """The same request with the invalid reply and the words that ask for another one."""
    said = shown(reply[:MAX_ECHO_CHARS]).strip() or "(an empty reply)"
    turns = (("assistant", said), ("user", turn))
    messages = (Message(role=role, blocks=(Block(text=text),)) for role, text in turns)
    return replace(request, messages=(*request.messages, *messages))


@dataclass
class Tally:
    """Sums over replies."""

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
        """One reply, new or reused."""
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
        """`of` with these sums."""
        sums = {name: value for name, value in vars(self).items() if name not in ("answered_by", "costs_usd")}
        return replace(
            of,
            answered_by=dict(sorted(self.answered_by.items())),
            n_calls=self.answered_by.total(),
            cost_usd=math.fsum(self.costs_usd),  # exact: replies arrive in any order
            **sums,
        )
