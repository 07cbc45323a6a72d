"""How many calls are in flight: the window's arithmetic, and tasks that wait for their turn."""

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ledger_provider import ScriptedProvider, echo, ledger_at, overloaded, request, words

from m3i.ledger import calls, faults
from m3i.ledger.limiter import START, Limiter, Window
from m3i.ledger.request import Transient


class Windows(RuleBasedStateMachine):
    """Any order of starts, answers, overloads and failures."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.window = Window(cap=6)
        self.calls = []
        self.halved_in = set()

    @rule(seconds=st.floats(0, 5))
    def time_passes(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.window.may_start(self.now))
    @rule()
    def start(self):
        assert self.now >= self.window.paused_until
        self.calls.append(self.window.start())

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), answered=st.booleans())
    def end(self, data, answered):
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        before = self.window.limit
        self.window.end(call, answered=answered)
        assert self.window.limit - before in ((0, 1) if answered else (0,))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), retry_after_s=st.none() | st.floats(0, 10))
    def overload(self, data, retry_after_s):
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        before = self.window.limit
        self.window.overloaded(call, self.now, retry_after_s)
        if call in self.halved_in:
            assert self.window.limit == before, "calls that were in flight together halve it once"
        else:
            assert self.window.limit == max(1, before // 2)
        self.halved_in.add(call)
        if retry_after_s is not None and self.now + retry_after_s * 0.999 < self.now + retry_after_s:
            assert not self.window.may_start(self.now + retry_after_s * 0.999)
        self.window.end(call, answered=False)

    @invariant()
    def within_bounds(self):
        assert 1 <= self.window.limit <= 6
        assert self.window.in_flight == len(self.calls) >= 0


TestWindows = Windows.TestCase


@given(cap=st.integers(1, 50))
def test_it_begins_small_and_grows_by_one_a_window_up_to_the_cap(cap):
    window = Window(cap=cap)
    assert window.limit == min(START, cap)
    for _ in range(2000):
        before = window.limit
        for call in [window.start() for _ in range(before)]:
            window.end(call, answered=True)
        assert window.limit == min(cap, before + 1)
        if before == cap:
            break
    assert window.limit == cap


def test_tasks_start_in_the_order_they_came_and_never_more_than_allowed():
    order, most = [], 0

    async def main():
        nonlocal most
        limiter = Limiter(Window(cap=2))

        async def call(n):
            nonlocal most
            async with limiter.permit():
                order.append(n)
                most = max(most, limiter.window.in_flight)
                await asyncio.sleep(0.001 * (n % 3))

        await asyncio.gather(*(call(n) for n in range(20)))

    asyncio.run(main())
    assert order == list(range(20))
    assert most == 2


def test_a_cancelled_waiter_gives_its_turn_to_the_next():
    async def main():
        limiter = Limiter(Window(cap=1))
        started = []

        async def call(n):
            async with limiter.permit():
                started.append(n)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(call(n)) for n in range(4)]
        await asyncio.sleep(0.001)
        tasks[1].cancel()
        tasks[2].cancel()
        await asyncio.wait_for(tasks[3], 10)
        return started

    assert asyncio.run(main()) == [0, 3]


def test_after_a_429_with_retry_after_nobody_of_that_model_sends_before_it_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "SPREAD_S", 0.01)
    sent, told = [], []

    async def script(req, attempt):
        loop = asyncio.get_running_loop()
        sent.append((req.model, loop.time()))
        if req.model == "a" and not told:
            while len([model for model, _ in sent if model == "a"]) < 2:  # the second is in flight too
                await asyncio.sleep(0.001)
            if not told:
                told.append(loop.time())
                raise Transient("slow down", status=429, retry_after_s=0.2)
        await asyncio.sleep(0.005)
        return echo(req)

    ledger = ledger_at(tmp_path / "ledger.sqlite", budget_usd=None, concurrency=2)

    async def main():
        provider = ScriptedProvider(script)
        await asyncio.gather(
            *(ledger.ask(provider, request(n, model=m), purpose="test") for n in range(12) for m in "ab")
        )

    asyncio.run(main())
    ledger.close()
    times = {model: [t for m, t in sent if m == model] for model in "ab"}
    assert [t for t in times["a"] if told[0] < t < told[0] + 0.2] == []
    assert len([t for t in times["a"] if t > told[0]]) == 11  # of the two in flight, one comes again
    assert len(times["b"]) == 12


def test_a_call_whose_turn_had_come_when_the_pause_began_waits_too(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "SPREAD_S", 0.01)
    claim, claiming, told, sent = calls.claim, threading.Event(), threading.Event(), {}

    def slow_claim(db, call):
        if words(call.request) == "second" and not told.is_set():
            claiming.set()
            told.wait(30)
            time.sleep(0.05)  # the 429 reaches the limiter while the reservation is being made
        return claim(db, call)

    monkeypatch.setattr(calls, "claim", slow_claim)

    async def script(req, attempt):
        now = asyncio.get_running_loop().time()
        sent[words(req), attempt] = now
        if (words(req), attempt) == ("first", 1):
            while not claiming.is_set():
                await asyncio.sleep(0.001)
            told.set()
            raise Transient("slow down", status=429, retry_after_s=0.3)
        return echo(req)

    ledger = ledger_at(tmp_path / "ledger.sqlite")

    async def main():
        provider = ScriptedProvider(script)
        first = asyncio.create_task(ledger.ask(provider, request("first"), purpose="test"))
        while not sent:
            await asyncio.sleep(0.001)
        await asyncio.gather(first, ledger.ask(provider, request("second"), purpose="test"))

    asyncio.run(main())
    ledger.close()
    assert sent["second", 1] >= sent["first", 1] + 0.3


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_never_more_in_flight_than_the_setting(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(faults, "FIRST_WAIT_S", 0.001)
    errors = (overloaded(), overloaded(status=529))
    provider = ScriptedProvider(
        lambda req, attempt: echo(req) if attempt > 2 or int(words(req)) % 3 else _raise(errors[attempt - 1]()),
        delay_s=0.002,
    )
    ledger = ledger_at(tmp_path / "ledger.sqlite", concurrency=limit)

    async def main():
        await asyncio.gather(*(ledger.ask(provider, request(n), purpose="test") for n in range(40)))

    asyncio.run(main())
    ledger.close()
    assert provider.most_in_flight <= limit
    assert provider.n_sent == 40 + 2 * 14


def _raise(error):
    raise error
