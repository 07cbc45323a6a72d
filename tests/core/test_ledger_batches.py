"""Batches through the ledger: reuse, resume, expiry, faults on the way, the budget."""

import asyncio
import contextlib
import sqlite3

import pytest
from ledger_provider import COST, PRICES, BatchingProvider, ScriptedProvider, echo, request

from m3i.cli.ledger import ledger_command
from m3i.config.settings import LedgerMode
from m3i.errors import ConfigError, InputError
from m3i.ledger import BudgetError, OutageError, ReplayError, batch_rows
from m3i.ledger.prices import estimate, price_of
from m3i.ledger.request import AccountError, RequestError, TooLong, Transient

WORST = estimate(request("x"), price_of("scripted", "test-model", PRICES), batch=True).usd_at_most
REQUESTS = {f"item {n}": request(n) for n in range(6)}


pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.fixture
def ledger_of(open_ledger):
    return lambda **options: open_ledger(**{"prices": PRICES, "batch_poll_s": 0.01} | options)


@pytest.fixture
def provider_of(tmp_path):
    folder = tmp_path / "provider"
    folder.mkdir()

    def make(script=None, **options):
        provider = BatchingProvider(folder, script, **options)
        provider.requests = {r.key: r for r in REQUESTS.values()}
        return provider

    return make


def rows(ledger, query):
    with contextlib.closing(sqlite3.connect(ledger.path)) as connection:
        return connection.execute(query).fetchall()


def ask_batch(ledger, provider, requests=REQUESTS, tick=lambda done, total: None):
    return asyncio.run(ledger.ask_batch(provider, requests, purpose="test", tick=tick))


def ask(ledger, provider, req):
    return asyncio.run(ledger.ask(provider, req, purpose="test"))


def attempt_raising(**by_text):
    """A script that raises `errors` for a text, one an attempt, then answers."""

    def script(req, attempt):
        errors = by_text.get(f"n{req.messages[0].text}", ())
        if attempt <= len(errors):
            raise errors[attempt - 1]
        return echo(req)

    return script


def test_answers_that_are_there_are_reused_and_the_rest_is_one_batch_at_half_price(ledger_of, provider_of):
    provider, ledger, ticks = provider_of(polls=3), ledger_of(), []
    ask(ledger, provider, REQUESTS["item 0"])
    requests = {**REQUESTS, "the same again": REQUESTS["item 1"]}
    answers = ask_batch(ledger, provider, requests, tick=lambda *t: ticks.append(t))
    assert list(provider.submitted.values()) == [5]
    assert {id: a.reply.text for id, a in answers.items()} == {
        id: f"answer to {r.messages[0].text}" for id, r in requests.items()
    }
    assert answers["item 0"].reused
    assert answers["item 0"].cost_usd == pytest.approx(COST)
    assert not answers["item 1"].reused
    assert answers["item 1"].cost_usd == pytest.approx(COST / 2)
    assert (ticks[0], ticks[-1]) == ((1, 7), (7, 7))
    (row,) = ledger.tally().rows
    assert (row["made"], row["reused"]) == (6, 1)
    assert ledger.tally().spent_in_account_usd == pytest.approx(COST + 5 * COST / 2)
    assert rows(ledger, "SELECT count(*) FROM reservations") == [(0,)]
    again = ask_batch(ledger_of(), provider, requests)
    assert all(a.reused for a in again.values())
    assert len(provider.submitted) == 1


def test_more_than_a_batch_holds_goes_as_several(ledger_of, provider_of, monkeypatch):
    monkeypatch.setattr(batch_rows, "MOST_REQUESTS", 4)
    provider = provider_of()
    assert len(ask_batch(ledger_of(), provider)) == 6
    assert sorted(provider.submitted.values()) == [2, 4]


def test_a_stopped_panel_goes_on_with_its_batch_in_the_same_process_and_in_the_next(ledger_of, provider_of):
    provider, ledger = provider_of(polls=10**9), ledger_of()

    async def stopped():
        task = asyncio.create_task(ledger.ask_batch(provider, REQUESTS, purpose="test", tick=lambda done, total: None))
        while sum(provider.states.values()) < 2:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stopped())
    assert rows(ledger, "SELECT state FROM batches") == [("working",)]
    asyncio.run(stopped())
    ledger.close()
    answers = ask_batch(ledger_of(), provider_of(polls=1))
    assert len(answers) == 6
    assert len(provider.submitted) == 1


def test_a_run_that_ended_between_submitting_and_noting_it_finds_its_batch(ledger_of, provider_of):
    class Killed(BaseException):
        """As kill -9: nothing is written after it."""

    provider = provider_of(submit_fault=lambda name: None)
    submit = provider.submit

    async def submit_and_die(name, requests):
        await submit(name, requests)
        raise Killed

    provider.submit = submit_and_die
    first = ledger_of()
    with pytest.raises(Killed):
        ask_batch(first, provider)
    assert rows(first, "SELECT state FROM batches") == [("submitting",)]
    first.close()
    again = provider_of()
    assert len(ask_batch(ledger_of(), again)) == 6
    assert (len(again.submitted), again.finds) == (1, 1)


def test_a_batch_that_never_arrived_is_submitted_after_a_look_for_it(ledger_of, provider_of):
    provider = provider_of()
    fault = Transient("the connection broke", maybe_billed=True)

    async def lost(name, requests):
        raise fault

    submit, provider.submit = provider.submit, lost
    first = ledger_of(deadline_s=0.1)
    with pytest.raises(OutageError, match=r"connection broke.*stays submitted"):
        ask_batch(first, provider)
    assert rows(first, "SELECT state FROM batches") == [("submitting",)]
    first.close()
    provider.submit = submit
    second = ledger_of()
    assert len(ask_batch(second, provider)) == 6
    assert rows(second, "SELECT state, count(*) FROM batches GROUP BY state") == [("collected", 1), ("refused", 1)]
    assert len(provider.submitted) == 1
    assert second.tally().uncertain_in_account_usd == 0


def test_a_submission_whose_answer_was_lost_is_found_and_not_repeated(ledger_of, provider_of):
    faults_left = [Transient("the connection broke", maybe_billed=True)]
    provider = provider_of(submit_fault=lambda name: faults_left.pop() if faults_left else None)
    assert len(ask_batch(ledger_of(), provider)) == 6
    assert len(provider.submitted) == 1
    assert provider.finds == 1


def test_a_wrong_guess_at_the_batch_is_followed_by_the_right_one_and_nothing_is_submitted_twice(ledger_of, provider_of):
    faults_left = [Transient("the connection broke", maybe_billed=True)]
    provider = provider_of(submit_fault=lambda name: faults_left.pop() if faults_left else None)
    find, collect = provider.find, provider.collect

    async def guess(name, request_ids):
        found = await find(name, request_ids)
        return "id-another-run" if provider.finds == 1 else found

    async def collect_theirs(batch_id):
        return {"theirs": echo(request("theirs"))} if batch_id == "id-another-run" else await collect(batch_id)

    provider.find, provider.collect = guess, collect_theirs
    assert len(ask_batch(ledger_of(), provider)) == 6
    assert len(provider.submitted) == 1
    assert provider.finds == 2


@pytest.mark.parametrize("error", [AccountError("401"), RequestError("400: batches are not for you")])
def test_a_refused_batch_frees_its_requests(ledger_of, provider_of, error):
    ledger = ledger_of()
    with pytest.raises(type(error), match=str(error)):
        ask_batch(ledger, provider_of(submit_fault=lambda name: error))
    assert rows(ledger, "SELECT count(*) FROM reservations") == [(0,)]
    assert len(ask_batch(ledger, provider_of())) == 6


def test_expired_requests_go_into_a_next_batch(ledger_of, provider_of):
    provider = provider_of(attempt_raising(n2=[Transient("expired")], n4=[Transient("expired"), Transient("expired")]))
    ledger = ledger_of()
    answers = ask_batch(ledger, provider)
    assert all(a.reply.text.startswith("answer") for a in answers.values())
    assert sorted(provider.submitted.values()) == [1, 2, 6]
    assert sum(ledger.tally().rows[0]["retries"].values()) == 3
    assert ledger.tally().uncertain_usd == 0


def test_a_request_that_always_expires_ends_as_an_outage_with_the_others_kept(ledger_of, provider_of):
    provider = provider_of(attempt_raising(n2=[Transient("expired")] * 99))
    ledger = ledger_of()
    with pytest.raises(OutageError, match=r"in 3 batches.*expired"):
        ask_batch(ledger, provider)
    assert len(provider.submitted) == 3
    assert rows(ledger, "SELECT count(*) FROM answers") == [(5,)]
    assert rows(ledger, "SELECT count(*) FROM reservations") == [(0,)]


def test_other_outcomes_of_single_requests(ledger_of, provider_of):
    script = attempt_raising(n1=[TooLong("too long")], n3=[RequestError("400: not this")])
    ledger = ledger_of()
    with pytest.raises(RequestError, match="not this"):
        ask_batch(ledger, provider_of(script))
    assert rows(ledger, "SELECT count(*) FROM answers") == [(5,)]
    answers = ask_batch(ledger, provider_of())
    assert isinstance(answers["item 1"], TooLong)
    assert answers["item 3"].reply.text == "answer to 3"


def test_passing_faults_while_it_is_polled_do_not_end_it(ledger_of, provider_of):
    provider = provider_of(polls=2)
    state, left = provider.state, [Transient("down", status=503)] * 3

    async def flaky_state(batch_id):
        if left:
            raise left.pop()
        return await state(batch_id)

    provider.state = flaky_state
    ledger = ledger_of()
    assert len(ask_batch(ledger, provider)) == 6
    assert ledger.tally().rows[0]["retries"] == {"503": 3}


def test_the_budget_holds_for_the_whole_batch(ledger_of, provider_of):
    provider, ledger = provider_of(), ledger_of(budget_usd=5.5 * WORST)
    with pytest.raises(BudgetError, match="nothing was sent"):
        ask_batch(ledger, provider)
    assert provider.submitted == {}
    few = dict(list(REQUESTS.items())[:5])
    assert len(ask_batch(ledger, provider, few)) == 5


def test_replay_answers_batches_too_and_submits_nothing(ledger_of, provider_of):
    provider = provider_of()
    ask_batch(ledger_of(), provider)
    replay = ledger_of(mode=LedgerMode.replay)
    assert all(a.reused for a in ask_batch(replay, provider).values())
    with pytest.raises(ReplayError, match=request("new").key):
        ask_batch(replay, provider, {"new": request("new")})
    assert len(provider.submitted) == 1


def left_behind(ledger, provider):
    """A batch that is submitted and that nobody looks after."""

    async def stopped():
        task = asyncio.create_task(ledger.ask_batch(provider, REQUESTS, purpose="test", tick=lambda done, total: None))
        while not provider.states:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(stopped())
    ((name,),) = rows(ledger, "SELECT name FROM batches WHERE state = 'working'")
    ledger.close()
    return name


def test_a_single_call_does_not_pay_again_for_what_a_batch_holds(ledger_of, provider_of):
    name = left_behind(ledger_of(), provider_of(polls=10**9))
    single = ScriptedProvider()
    ledger = ledger_of()
    with pytest.raises(ConfigError, match=f"{name}.*mode=batch"):
        ask(ledger, single, REQUESTS["item 0"])
    assert single.n_sent == 0
    ask_batch(ledger, provider_of())
    assert ask(ledger, single, REQUESTS["item 0"]).reused


@pytest.mark.parametrize("mode", ["each", "batch"])
def test_money_held_by_a_batch_that_nobody_waits_for_is_not_waited_for(ledger_of, provider_of, mode):
    name = left_behind(ledger_of(), provider_of(polls=10**9))
    ledger, provider, other = ledger_of(budget_usd=6.5 * WORST), provider_of(), request("other")
    with pytest.raises(BudgetError, match=f"no run is waiting for .{name}.*mode=batch"):
        ask(ledger, provider, other) if mode == "each" else ask_batch(ledger, provider, {"other": other})
    assert provider.n_sent == 0
    ask_batch(ledger, provider)
    assert not ask(ledger, provider, other).reused


def test_a_batch_can_be_given_up(ledger_of, provider_of, capsys):
    first = ledger_of()
    name = left_behind(first, provider_of(polls=10**9))
    ledger_command(["show", "--path", str(first.path)])
    assert f"batch {name} (scripted test-model, 6 requests" in capsys.readouterr().out.replace("\n", " ")
    ledger_command(["abandon", name, "--path", str(first.path)])
    ledger = ledger_of()
    assert not ask(ledger, ScriptedProvider(), REQUESTS["item 0"]).reused
    assert ledger.tally().uncertain_in_account_usd == pytest.approx(6 * WORST)
    with pytest.raises(InputError, match="no open batch"):
        ledger_command(["abandon", name, "--path", str(first.path)])


def test_a_batch_that_the_provider_does_not_know_is_not_submitted_anew_by_itself(ledger_of, provider_of):
    left_behind(ledger_of(), provider_of(polls=10**9))
    provider = provider_of()

    async def unknown(batch_id):
        raise RequestError(f"404: no batch {batch_id}")

    provider.state = unknown
    ledger = ledger_of()
    for _ in range(2):
        with pytest.raises(RequestError, match=r"404: no batch.*m3i ledger abandon m3i-"):
            ask_batch(ledger, provider)
    assert len(provider.submitted) == 1
    assert rows(ledger, "SELECT state FROM batches") == [("working",)]
