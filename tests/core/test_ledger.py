"""Asking through the ledger, in one process: reuse, retries, deadlines, cancellation, the budget."""

import asyncio
import contextlib
import json
import sqlite3
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_provider import COST, PRICES, ScriptedProvider, echo, flaky, hangs, ledger_at, overloaded, request, words

from m3i.config.settings import LedgerMode
from m3i.errors import ConfigError, StoreError
from m3i.ledger import BudgetError, OutageError, ReplayError
from m3i.ledger import single_call as sending
from m3i.ledger.prices import estimate, price_of
from m3i.ledger.request import AccountError, RequestError, Stop, TooLong, Transient, Usage

WORST = estimate(request("x"), price_of("scripted", "test-model", PRICES)).usd_at_most


pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.fixture
def ledger_of(open_ledger):
    return lambda **options: open_ledger(**{"prices": PRICES} | options)


def rows(ledger, query, *values):
    with contextlib.closing(sqlite3.connect(ledger.path)) as connection:
        return connection.execute(query, values).fetchall()


def ask(ledger, provider, *requests):
    async def all_of_them():
        return await asyncio.gather(*(ledger.ask(provider, r, purpose="test") for r in requests))

    return asyncio.run(all_of_them())


# -- reuse ------------------------------------------------------------------------------------


def test_an_answer_is_kept_and_given_again_whole(ledger_of):
    provider = ScriptedProvider()
    (first,) = ask(ledger_of(), provider, request("a"))
    (again,) = ask(ledger_of(), provider, request("a"))
    assert provider.n_sent == 1
    assert again.reply == first.reply == echo(request("a"))
    assert (first.reused, again.reused) == (False, True)
    assert first.cost_usd == again.cost_usd == pytest.approx(COST)


def test_nothing_is_touched_before_the_first_use(tmp_path, ledger_of):
    ledger = ledger_of()
    assert ledger.recording == ""
    assert ledger.known([request("a").key]) == set()
    assert ledger.tally().rows == ()
    assert list(tmp_path.iterdir()) == []


def test_a_replicate_is_a_request_of_its_own_and_a_cache_mark_is_not(ledger_of):
    provider = ScriptedProvider()
    ledger = ledger_of()
    ask(ledger, provider, request("a"), request("a", replicate=1))
    assert provider.n_sent == 2
    assert ledger.known([request("a").key, request("b").key]) == {request("a").key}


def test_identical_requests_in_flight_are_one_call(ledger_of):
    provider = ScriptedProvider(delay_s=0.05)
    ledger = ledger_of()
    answers = ask(ledger, provider, *[request("a")] * 20)
    assert provider.n_sent == 1
    assert [a.reused for a in answers].count(False) == 1
    (row,) = ledger.tally().rows
    assert (row["made"], row["waited"], row["reused"]) == (1, 19, 0)


def test_the_ledger_serves_one_event_loop_after_another(ledger_of):
    ledger = ledger_of(concurrency=2)
    provider = ScriptedProvider(delay_s=0.01)
    for n in range(3):
        ask(ledger, provider, *(request(f"{n} {i}") for i in range(6)))
    assert provider.n_sent == 18
    assert provider.most_in_flight == 2


def test_too_long_is_an_answer_and_costs_nothing_the_second_time(ledger_of):
    def script(req, attempt):
        raise TooLong("300000 tokens > 200000")

    provider = ScriptedProvider(script)
    ledger = ledger_of()
    for _ in range(2):
        with pytest.raises(TooLong, match="300000 tokens"):
            ask(ledger, provider, request("a"))
    assert provider.n_sent == 1
    assert ledger.tally().spent_in_account_usd == 0
    assert rows(ledger, "SELECT count(*) FROM reservations") == [(0,)]


# -- modes ------------------------------------------------------------------------------------


def test_record_calls_afresh_and_a_later_live_run_takes_its_answers(ledger_of):
    provider = ScriptedProvider(lambda req, attempt: echo(req, text=f"take {attempt}"))
    ask(ledger_of(), provider, request("a"))
    recording = ledger_of(mode=LedgerMode.record)
    name = recording.recording
    assert name
    (answer,) = ask(recording, provider, request("a"))
    ask(recording, provider, request("a"))
    assert (answer.reply.text, provider.n_sent) == ("take 2", 2)
    live = ledger_of()
    assert live.recording == name
    assert ask(live, provider, request("a"))[0].reply.text == "take 2"


def test_a_recording_with_a_name_goes_on_where_it_was(ledger_of):
    provider = ScriptedProvider(lambda req, attempt: echo(req, text=f"take {attempt}"))
    for _ in range(2):
        ask(ledger_of(mode=LedgerMode.record, recording="paper"), provider, request("a"))
    assert provider.n_sent == 1
    ask(ledger_of(mode=LedgerMode.record, recording="second"), provider, request("a"))
    assert ledger_of().recording == "second"
    (chosen,) = ask(ledger_of(mode=LedgerMode.replay, recording="paper"), provider, request("a"))
    assert chosen.reply.text == "take 1"
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        _ = ledger_of(recording="papr").recording


def test_replay_never_calls_and_names_what_is_missing(tmp_path, ledger_of):
    provider = ScriptedProvider()
    replay = ledger_of(mode=LedgerMode.replay)
    with pytest.raises(ReplayError, match=r"test-model \(scripted\).*'test'.*m3i ledger import"):
        ask(replay, provider, request("a"))
    assert list(tmp_path.iterdir()) == []
    ask(ledger_of(), provider, request("a"))
    assert ask(ledger_of(mode=LedgerMode.replay), provider, request("a"))[0].reused
    with pytest.raises(ReplayError, match=request("b").key):
        ask(ledger_of(mode=LedgerMode.replay), provider, request("b"))
    assert provider.n_sent == 1


# -- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "uncertain"),
    [
        (overloaded(), "429", 0),
        (overloaded(0.02), "429", 0),
        (overloaded(status=529), "529", 0),
        (lambda: Transient("server", status=500, maybe_billed=True), "500", 1),
        (lambda: Transient("server", status=503), "503", 0),
        (lambda: Transient("Connection refused"), "connection refused", 0),
        (lambda: Transient("connect timeout"), "timeout", 0),
        (lambda: Transient("the connection broke", maybe_billed=True), "connection", 1),
        (lambda: Transient("not JSON", status=200, maybe_billed=True), "unreadable reply", 1),
    ],
)
def test_a_passing_fault_is_tried_again_and_counted(ledger_of, error, kind, uncertain):
    provider = ScriptedProvider(flaky(error, error))
    ledger = ledger_of()
    (answer,) = ask(ledger, provider, request("a"))
    assert answer.reply.text == "answer to a"
    tally = ledger.tally()
    assert tally.rows[0]["retries"] == {kind: 2}
    assert tally.uncertain_usd == tally.uncertain_in_account_usd == pytest.approx(2 * uncertain * WORST)
    assert rows(ledger, "SELECT class, count(*) FROM attempts GROUP BY class") == [(kind, 2)]
    assert rows(ledger, "SELECT count(*) FROM reservations") == [(0,)]


@pytest.mark.parametrize("error", [AccountError("401: look at SCRIPTED_API_KEY"), RequestError("404: no such model")])
def test_an_error_that_does_not_pass_is_not_tried_again(ledger_of, error):
    def script(req, attempt):
        raise error

    provider = ScriptedProvider(script)
    ledger = ledger_of()
    with pytest.raises(type(error), match=str(error)):
        ask(ledger, provider, request("a"))
    assert provider.n_sent == 1
    assert rows(ledger, "SELECT count(*) FROM answers UNION ALL SELECT count(*) FROM reservations") == [(0,), (0,)]


def test_all_who_wait_for_a_call_that_fails_hear_of_it(ledger_of):
    async def script(req, attempt):
        await asyncio.sleep(0.02)
        raise AccountError("401")

    provider = ScriptedProvider(script)
    ledger = ledger_of()

    async def both():
        return await asyncio.gather(
            *(ledger.ask(provider, request("a"), purpose="test") for _ in range(3)), return_exceptions=True
        )

    assert [type(outcome) for outcome in asyncio.run(both())] == [AccountError] * 3
    assert provider.n_sent == 1


def test_a_server_that_always_asks_for_no_wait_is_not_hammered(ledger_of):
    provider = ScriptedProvider(flaky(*[overloaded(0.0)] * 10**4))
    with pytest.raises(OutageError, match="slow down"):
        ask(ledger_of(deadline_s=0.5), provider, request("a"))
    assert provider.n_sent < 10  # waits of about 0.01, 0.02, 0.04, ... s


def test_a_call_whose_turn_comes_too_late_says_what_its_attempt_ended_in(ledger_of):
    async def script(req, attempt):
        if words(req) == "refused":
            raise overloaded(0.0)()  # from here on one call at a time
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)  # a client that is slow to end holds the only place
            raise

    ledger = ledger_of(deadline_s=0.3, concurrency=2)
    provider = ScriptedProvider(script)

    async def both():
        calls = [ledger.ask(provider, request(text), purpose="test") for text in ("slow", "refused")]
        return await asyncio.gather(*calls, return_exceptions=True)

    slow, refused = asyncio.run(both())
    assert "no whole answer within" in str(slow)
    assert "failed with: slow down; ledger.deadline_s = 0.3 leaves no time for another" in str(refused)


def test_the_import_of_a_client_library_is_of_no_calls_time(ledger_of):
    class Heavy(ScriptedProvider):
        async def load_client(self):
            await asyncio.sleep(0.3 if not self.timeouts else 0)

    provider = Heavy()
    (answer,) = ask(ledger_of(timeout_s=0.2), provider, request("a"))
    assert answer.reply.text == "answer to a"
    assert provider.timeouts == [0.2]


def test_a_client_that_cannot_be_made_leaves_nothing_in_flight(ledger_of):
    class Keyless(ScriptedProvider):
        async def load_client(self):
            raise AccountError("no key")

    ledger = ledger_of()
    with pytest.raises(AccountError, match="no key"):
        ask(ledger, Keyless(), request("a"))
    assert rows(ledger, "SELECT count(*) FROM reservations") == [(0,)]


def test_a_client_that_is_interrupted_while_it_loads_has_cost_nothing(ledger_of):
    class Slow(ScriptedProvider):
        async def load_client(self):
            raise asyncio.CancelledError

    ledger, provider = ledger_of(), Slow()
    with pytest.raises(asyncio.CancelledError):
        ask(ledger, provider, request("a"))
    assert (provider.n_sent, ledger.tally().uncertain_usd) == (0, 0.0)
    assert rows(ledger, "SELECT count(*) FROM reservations") == [(0,)]


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def too_deep_for_the_client(req, attempt):
    raise RecursionError("maximum recursion depth exceeded while decoding a JSON array")


@pytest.mark.parametrize(
    "deep", [too_deep_for_the_client, lambda req, attempt: echo(req, raw={"a": nested(5000)})], ids=["client", "raw"]
)
def test_a_response_nested_without_end_is_an_unreadable_one(ledger_of, deep):
    ledger = ledger_of()
    (answer,) = ask(
        ledger, ScriptedProvider(lambda req, attempt: deep(req, attempt) if attempt == 1 else echo(req)), request("a")
    )
    assert answer.reply.text == "answer to a"
    assert ledger.tally().rows[0]["retries"] == {"unreadable reply": 1}
    assert ledger.tally().uncertain_usd == pytest.approx(WORST)


def test_a_provider_cannot_pay_back_into_the_budget():
    with pytest.raises(ValueError, match="below 0"):
        Usage(input_tokens=-5, output_tokens=10)


def test_an_outage_ends_at_the_deadline_and_the_same_call_goes_on_later(ledger_of):
    provider = ScriptedProvider(
        lambda req, attempt: flaky(*[lambda: Transient("down", status=503)] * 10**6)(req, attempt)
    )
    with pytest.raises(OutageError, match=r"test-model.*attempts in.*down.*deadline_s = 2 leaves.*kept"):
        ask(ledger_of(deadline_s=2.0), provider, request("a"))
    assert provider.n_sent > 1
    assert ask(ledger_of(), ScriptedProvider(), request("a"))[0].reply.text == "answer to a"


def test_a_wait_longer_than_the_deadline_ends_at_once(ledger_of):
    provider = ScriptedProvider(flaky(overloaded(3600.0)))
    with pytest.raises(OutageError, match="asks for a wait of 3600 s"):
        ask(ledger_of(deadline_s=60.0), provider, request("a"))
    assert provider.n_sent == 1


def test_a_slow_drip_is_cut_at_the_timeout_and_booked_as_uncertain(ledger_of):
    slow = ScriptedProvider(lambda req, attempt: hangs()(req, attempt) if attempt == 1 else echo(req))
    ledger = ledger_of(timeout_s=0.05)
    (answer,) = ask(ledger, slow, request("a"))
    assert answer.reply.text == "answer to a"
    assert ledger.tally().rows[0]["retries"] == {"timeout": 1}
    assert ledger.tally().uncertain_usd == pytest.approx(WORST)
    assert slow.in_flight == 0


def test_a_client_that_ignores_its_cancellation_holds_nobody(ledger_of, monkeypatch):
    monkeypatch.setattr(sending, "ENDING_S", 0.05)

    async def deaf(req, attempt):
        for _ in range(40):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return echo(req)

    provider = ScriptedProvider(lambda req, attempt: deaf(req, attempt) if attempt == 1 else echo(req))
    ledger = ledger_of(timeout_s=0.05)
    ask(ledger, provider, request("a"))
    assert provider.attempts["a"] == 2


def test_a_bug_in_a_client_is_not_swallowed_and_what_it_may_have_cost_is_booked(ledger_of):
    def script(req, attempt):
        raise ZeroDivisionError("a bug")

    ledger = ledger_of()
    with pytest.raises(ZeroDivisionError, match="a bug"):
        ask(ledger, ScriptedProvider(script), request("a"))
    assert ledger.tally().uncertain_usd == pytest.approx(WORST)
    assert rows(ledger, "SELECT count(*) FROM reservations") == [(0,)]


def test_jumps_of_the_wall_clock_change_nothing(ledger_of, monkeypatch):
    real, jumps = time.time, iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(jumps) * 1e8)
    provider = ScriptedProvider(flaky(overloaded(0.01), lambda: Transient("down", status=503)))
    ledger = ledger_of(deadline_s=30.0, timeout_s=10.0)
    ask(ledger, provider, *(request(n) for n in range(8)))
    assert provider.n_sent == 24
    assert ask(ledger_of(), provider, request(0))[0].reused
    assert ledger.tally().rows[0]["latency_max_s"] < 60


# -- cancellation -----------------------------------------------------------------------------


def started(provider):
    async def wait():
        while not provider.in_flight:
            await asyncio.sleep(0.001)

    return wait()


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_call_in_flight_is_recorded_though_its_task_is_cancelled(ledger_of):
    provider = ScriptedProvider(delay_s=0.05)
    ledger = ledger_of()

    async def main():
        task = asyncio.create_task(ledger.ask(provider, request("a"), purpose="test"))
        await started(provider)
        await cancelled(task)

    asyncio.run(main())
    assert ask(ledger, provider, request("a"))[0].reused
    assert provider.n_sent == 1
    assert ledger.tally().uncertain_usd == 0


def test_a_second_cancellation_gives_up_and_books_the_call_as_uncertain(ledger_of):
    provider = ScriptedProvider(hangs())
    ledger = ledger_of()

    async def main():
        task = asyncio.create_task(ledger.ask(provider, request("a"), purpose="test"))
        await started(provider)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        await cancelled(task)

    asyncio.run(main())
    assert ledger.tally().uncertain_usd == pytest.approx(WORST)
    assert rows(ledger, "SELECT count(*) FROM reservations") == [(0,)]


def test_the_grace_time_ends(ledger_of, monkeypatch):
    monkeypatch.setattr(sending, "GRACE_S", 0.02)
    provider = ScriptedProvider(hangs())
    ledger = ledger_of()

    async def main():
        task = asyncio.create_task(ledger.ask(provider, request("a"), purpose="test"))
        await started(provider)
        await cancelled(task)

    asyncio.run(main())
    assert ledger.tally().uncertain_usd == pytest.approx(WORST)


def test_cancelling_calls_that_wait_for_their_turn_sends_none_of_them(ledger_of):
    provider = ScriptedProvider(delay_s=0.05)
    ledger = ledger_of(concurrency=1)

    async def main():
        tasks = [asyncio.create_task(ledger.ask(provider, request(n), purpose="test")) for n in range(6)]
        await started(provider)
        for task in tasks:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in asyncio.run(main()))
    assert provider.n_sent == 1
    assert rows(ledger, "SELECT count(*) FROM answers") == [(1,)]


def test_when_one_of_two_who_ask_the_same_is_cancelled_the_other_gets_its_answer(ledger_of):
    provider = ScriptedProvider(delay_s=0.02)
    ledger = ledger_of()

    async def main():
        first = asyncio.create_task(ledger.ask(provider, request("a"), purpose="test"))
        await started(provider)
        second = asyncio.create_task(ledger.ask(provider, request("a"), purpose="test"))
        await asyncio.sleep(0.001)
        await cancelled(first)
        return await second

    assert asyncio.run(main()).reply.text == "answer to a"
    assert provider.n_sent == 1


def test_a_callers_own_timeout_stays_a_timeout(ledger_of):
    provider = ScriptedProvider(delay_s=0.05)
    ledger = ledger_of()

    async def main():
        async with asyncio.timeout(None) as deadline:

            async def once_started():
                await started(provider)
                deadline.reschedule(asyncio.get_running_loop().time())

            starting = asyncio.create_task(once_started())
            await ledger.ask(provider, request("a"), purpose="test")
            await starting
            await asyncio.sleep(10)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert rows(ledger, "SELECT count(*) FROM answers") == [(1,)]


# -- the budget -------------------------------------------------------------------------------


def test_the_budget_stops_before_the_call_and_says_what_to_do(ledger_of):
    provider = ScriptedProvider()
    ledger = ledger_of(budget_usd=WORST + 1.5 * COST)
    ask(ledger, provider, request(1))
    ask(ledger, provider, request(2))
    with pytest.raises(
        BudgetError, match=r"account 'default' has spent \$0\.0003.*up to \$.*ledger\.budget_usd.*account"
    ):
        ask(ledger, provider, request(3))
    assert provider.n_sent == 2
    assert ask(ledger, provider, request(1))[0].reused
    ask(ledger_of(budget_usd=WORST, account="second"), provider, request(3))


def test_calls_wait_for_others_in_flight_before_they_say_the_budget_is_spent(ledger_of):
    provider = ScriptedProvider(delay_s=0.01)
    ledger = ledger_of(budget_usd=1.5 * WORST)
    ask(ledger, provider, *(request(n) for n in range(4)))
    assert provider.n_sent == 4
    assert provider.most_in_flight == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    outcomes=st.lists(
        st.one_of(
            st.floats(0, 1).map(lambda share: ("reply", share)),
            st.sampled_from([("billed", 0), ("free", 0), ("too_long", 0)]),
        ),
        min_size=1,
        max_size=12,
    ),
    budget_in_calls=st.floats(0, 8),
)
def test_the_budget_is_never_overshot(tmp_path_factory, outcomes, budget_in_calls):
    provider_bill = []

    def script(req, attempt):
        kind, share = outcomes[req.replicate]
        if kind == "reply":
            usage = Usage(input_tokens=int(share * 50), output_tokens=int(share * req.max_tokens))
            provider_bill.append((usage.input_tokens + usage.output_tokens) * 1e-6)
            return echo(req, usage)
        if kind == "too_long":
            raise TooLong("too long")
        if kind == "billed":
            provider_bill.append(req.max_tokens * 1e-6)  # worked on, though no answer came
        raise Transient("the connection broke", maybe_billed=kind == "billed")

    budget = budget_in_calls * WORST
    ledger = ledger_at(
        tmp_path_factory.mktemp("budget") / "ledger.sqlite", budget_usd=budget, deadline_s=0.05, concurrency=3
    )
    provider = ScriptedProvider(script, delay_s=0.001)

    async def main():
        requests = [request("same", replicate=n) for n in range(len(outcomes))]
        return await asyncio.gather(
            *(ledger.ask(provider, r, purpose="test") for r in requests), return_exceptions=True
        )

    try:
        results = asyncio.run(main())
        tally = ledger.tally()
    finally:
        ledger.close()
    bugs = [r for r in results if isinstance(r, Exception) and not isinstance(r, (BudgetError, OutageError, TooLong))]
    assert not bugs
    assert tally.spent_in_account_usd + tally.uncertain_in_account_usd <= budget
    assert sum(provider_bill) <= budget


def test_without_a_price_a_budget_cannot_be_kept(ledger_of):
    provider = ScriptedProvider()
    with pytest.raises(ConfigError, match=r"no price is known for other-model.*ledger\.prices.*budget_usd=null"):
        ask(ledger_of(), provider, request("a", model="other-model"))
    ledger = ledger_of(budget_usd=None)
    (answer,) = ask(ledger, provider, request("a", model="other-model"))
    assert answer.cost_usd is None
    assert ledger.tally().rows[0]["unpriced"] == 1


@pytest.mark.parametrize(
    ("price", "says"),
    [
        ({"input": 1, "outputs": 2}, "did you mean 'output'"),
        ({"input": 1}, "output is missing"),
        ({"input": 1, "output": -1}, "0 or more"),
        ({"input": 1, "output": float("nan")}, "0 or more"),
        (3, "expected a mapping"),
    ],
)
def test_a_price_that_cannot_be_used_is_refused_at_once(ledger_of, price, says):
    with pytest.raises(ConfigError, match=says):
        ledger_of(prices={"m": price})


# -- secrets ----------------------------------------------------------------------------------


def test_no_secret_reaches_the_file_or_a_message(tmp_path, ledger_of, monkeypatch):
    secret = 'planted/se+cret "42"'
    monkeypatch.setenv("SCRIPTED_API_KEY", secret)

    def script(req, attempt):
        if req.replicate == 0:
            if attempt == 1:
                raise Transient(f"bad gateway; request had x-api-key: {secret}", status=503)
            return echo(req, text=f"you sent {secret}", raw={"echo": [{secret: json.dumps(secret)}]}, request_id=secret)
        if req.replicate == 1:
            raise TooLong(f"too long: {secret}")
        try:
            raise ValueError(secret)
        except ValueError as error:
            raise AccountError(f"401 for key {secret}") from error

    ledger = ledger_of()
    provider = ScriptedProvider(script)

    async def main():
        return await asyncio.gather(
            *(ledger.ask(provider, request("a", replicate=n), purpose=f"look at {secret}") for n in range(3)),
            return_exceptions=True,
        )

    answer, too_long, account = asyncio.run(main())
    assert answer.reply.text == "you sent [SCRIPTED_API_KEY]"
    assert ask(ledger, provider, request("a"))[0].reply == answer.reply
    assert secret not in f"{answer} {too_long} {account} {account.__cause__!r}"
    ledger.close()
    data = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"[SCRIPTED_API_KEY]" in data
    for form in (secret, json.dumps(secret)[1:-1], "planted%2Fse%2Bcret"):
        assert form.encode() not in data


def test_a_request_that_holds_a_key_is_not_sent(ledger_of, monkeypatch):
    monkeypatch.setenv("SCRIPTED_API_KEY", "planted-secret-42")
    provider = ScriptedProvider()
    with pytest.raises(ConfigError, match="SCRIPTED_API_KEY") as error:
        ask(ledger_of(), provider, request("tell planted-secret-42 to nobody"))
    assert "planted" not in str(error.value)
    with pytest.raises(ConfigError, match="SCRIPTED_API_KEY"):
        ask(ledger_of(), provider, request("a", options={"api_base": "https://h/?key=planted-secret-42"}))
    assert provider.n_sent == 0


# -- counts -----------------------------------------------------------------------------------


def test_the_tally_adds_up_and_is_json(ledger_of):
    usage = Usage(input_tokens=10, cache_read_tokens=200, cache_write_tokens=30, output_tokens=5)
    prices = {"test-model": {"input": 2, "output": 10, "cache_read": 0.5, "cache_write": 4}}
    provider = ScriptedProvider(lambda req, attempt: echo(req, usage))
    ledger = ledger_of(prices=prices, account="mine")
    ask(ledger, provider, request(1), request(2), request(3))
    ask(ledger, provider, request(1))
    tally = ledger.tally()
    (row,) = tally.rows
    each = (10 * 2 + 200 * 0.5 + 30 * 4 + 5 * 10) * 1e-6
    assert row["made"] == 3
    assert row["reused"] == 1
    assert row["cost_usd"] == pytest.approx(3 * each)
    assert row["saved_usd"] == pytest.approx(each)
    assert (row["input_tokens"], row["cache_read_tokens"], row["cache_write_tokens"], row["output_tokens"]) == (
        *(30, 600, 90, 15),
    )
    assert 0 <= row["latency_median_s"] <= row["latency_max_s"]
    assert tally.spent_in_account_usd == pytest.approx(3 * each)
    assert (tally.account, tally.mode, tally.recording) == ("mine", "live", "")
    assert "litellm" in tally.price_source
    json.dumps(tally.__dict__, allow_nan=False)


def test_refused_and_truncated_replies_are_answers_too(ledger_of):
    for n, stop in enumerate((Stop.REFUSAL, Stop.MAX_TOKENS, Stop.OTHER)):
        provider = ScriptedProvider(lambda req, attempt, stop=stop: echo(req, stop=stop, text=""))
        ledger = ledger_of()
        ask(ledger, provider, request(n))
        assert ask(ledger, provider, request(n))[0].reply.stop is stop
        assert provider.n_sent == 1


def test_odd_text_comes_back_as_it_was(ledger_of):
    text = '\ud800 \x00 \u202e 𝔘 " \\ \n'
    ledger = ledger_of()
    ask(ledger, ScriptedProvider(lambda req, attempt: echo(req, text=text, raw={"t": text})), request("a"))
    assert ask(ledger_of(), None, request("a"))[0].reply.text == text


# -- the file ---------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"certainly not SQLite" * 100)
    with pytest.raises(StoreError, match=r"ledger\.sqlite is not a ledger"):
        ask(ledger_at(path), ScriptedProvider(), request("a"))
    assert path.read_bytes().startswith(b"certainly")


def test_another_database_and_a_newer_ledger_are_refused(tmp_path):
    path = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photos (id)")
    with pytest.raises(StoreError, match="not an M3I ledger"):
        ask(ledger_at(path), ScriptedProvider(), request("a"))
    path = tmp_path / "newer.sqlite"
    with contextlib.closing(ledger_at(path)) as ledger:
        ask(ledger, ScriptedProvider(), request("a"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer version of M3I"):
        ask(ledger_at(path), ScriptedProvider(), request("a"))


def test_a_damaged_file_is_named_and_nothing_is_sent(tmp_path):
    path = tmp_path / "ledger.sqlite"
    provider = ScriptedProvider(lambda req, attempt: echo(req, text="x" * 3000))
    with contextlib.closing(ledger_at(path)) as ledger:
        ask(ledger, provider, *(request(n) for n in range(30)))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    sent = provider.n_sent
    with contextlib.closing(ledger_at(path)) as ledger, pytest.raises(StoreError, match="is damaged"):
        ask(ledger, provider, request("new"))
    assert provider.n_sent == sent
