"""The panel against the real ledger: order of calls, repair, counts, stopping."""

import asyncio
import json

import pytest
from llm_scripted import ScriptedBatchProvider, ScriptedProvider, reply, until

from m3i.artifacts import CallFacts
from m3i.config.settings import LedgerMode
from m3i.errors import ConfigError, StageError
from m3i.ledger import BudgetError, OutageError, ReplayError
from m3i.ledger.prices import estimate, price_of
from m3i.ledger.request import AccountError, Block, Message, ModelRequest, RequestError, Stop, TooLong, Transient
from m3i.llm.panel import Ask, CallMode, ReplyError, ask_all, together

PRICE = {"input": 1, "output": 2, "cache_read": 0.1, "cache_write": 1.25}
COST = (100 * 1 + 20 * 0.1 + 3 * 1.25 + 7 * 2) / 1e6


@pytest.fixture
def ledger_of(open_ledger):
    return lambda **options: open_ledger(**{"prices": {"scripted-1": PRICE}, "deadline_s": 5.0} | options)


def request_of(text, **options):
    system = (Block(text="rubric", cache=True),)
    messages = (Message(role="user", blocks=(Block(text=text),)),)
    return ModelRequest(
        provider="scripted", model="scripted-1", system=system, messages=messages, schema=None, max_tokens=64, **options
    )


def number(text):
    try:
        return int(text)
    except ValueError:
        raise ReplyError("it is no number") from None


def ask_of(name, text=None, read=number):
    return Ask(id=name, request=request_of(text or name), read=read, repair=lambda error: f"Again, because {error}.")


def last(request):
    return request.messages[-1].text


def run(ledger, provider, asks, **options):
    return asyncio.run(ask_all(ledger, provider, asks, purpose="test", **options))


ASKS = [ask_of(str(n)) for n in range(6)]
ECHO = lambda request: reply(last(request))  # noqa: E731


def test_every_item_gets_its_value_and_everything_is_summed(ledger_of):
    ticks = []
    facts = CallFacts(provider="scripted", model="scripted-1", family="scripted", prompt="p 1", prompt_sha256="00")
    asked = run(ledger_of(), ScriptedProvider(ECHO), ASKS, facts=facts, tick=lambda *t: ticks.append(t))
    assert asked.values == {str(n): n for n in range(6)}
    assert not asked.missing
    assert ticks == [(n, 6) for n in range(1, 7)]
    assert asked.facts.cost_usd == pytest.approx(6 * COST)
    assert asked.facts == CallFacts(
        provider="scripted", model="scripted-1", family="scripted", prompt="p 1", prompt_sha256="00",
        answered_by={"scripted-1-2026": 6}, n_calls=6, input_tokens=600, cache_read_tokens=120, cache_write_tokens=18,
        output_tokens=42, cost_usd=asked.facts.cost_usd,
    )  # fmt: skip


def test_answers_from_the_ledger_count_as_they_did_and_cost_no_call(ledger_of):
    first = run(ledger_of(), ScriptedProvider(ECHO), ASKS)
    again = ScriptedProvider(ECHO)
    assert run(ledger_of(), again, ASKS).facts == first.facts
    replayed = run(ledger_of(mode=LedgerMode.replay), again, ASKS)
    assert replayed.values == first.values
    assert again.asked == []


def test_the_first_call_goes_alone_and_the_others_together(ledger_of):
    async def hold(provider, request):
        if last(request) == "0":
            await asyncio.sleep(0.05)
            assert provider.in_flight == 1
        else:
            assert provider.finished >= 1
            await until(lambda: provider.most_in_flight == 4)

    provider = ScriptedProvider(ECHO, hold=hold)
    assert len(run(ledger_of(concurrency=4), provider, ASKS).values) == 6
    assert last(provider.asked[0]) == "0"


def test_items_with_the_same_request_share_a_call(ledger_of):
    provider = ScriptedProvider(ECHO)
    asks = [ask_of("a", "7"), ask_of("b", "7", read=lambda text: f"<{text}>"), ask_of("c", "8")]
    asked = run(ledger_of(), provider, asks)
    assert asked.values == {"a": 7, "b": "<7>", "c": 8}
    assert len(provider.asked) == asked.facts.n_calls == 2


def test_an_invalid_reply_gets_one_repair_turn(ledger_of):
    def script(request):
        return reply("7" if len(request.messages) == 3 else "seven")

    provider = ScriptedProvider(script)
    asked = run(ledger_of(), provider, ASKS[:1])
    assert asked.values == {"0": 7}
    assert (asked.facts.n_calls, asked.facts.n_repairs, asked.facts.n_invalid) == (2, 1, 0)
    turns = [(m.role, m.text) for m in provider.asked[1].messages]
    assert turns == [("user", "0"), ("assistant", "seven"), ("user", "Again, because it is no number.")]
    assert provider.asked[1].system == provider.asked[0].system


def test_a_second_invalid_reply_is_missing(ledger_of):
    provider = ScriptedProvider(lambda request: reply("" if last(request) != "1" else "1"))
    asked = run(ledger_of(), provider, ASKS[:2])
    assert asked.values == {"1": 1}
    assert asked.missing == {"0": "no valid reply after one repair turn: it is no number"}
    assert (asked.facts.n_calls, asked.facts.n_repairs, asked.facts.n_invalid) == (3, 1, 1)
    assert [m.text for r in provider.asked for m in r.messages if m.role == "assistant"] == ["(an empty reply)"]


@pytest.mark.parametrize(
    ("outcome", "reason", "refused", "truncated"),
    [
        (reply("", Stop.REFUSAL), "the model or its provider's filter refused", 1, 0),
        (reply("0", Stop.MAX_TOKENS), "the reply was cut at max_tokens=64; raise it", 0, 1),
        (TooLong("9000 tokens exceed 8192"), "the prompt is too long for the model: 9000 tokens exceed 8192", 0, 0),
    ],
)
def test_what_has_no_text_to_read_is_missing_without_a_repair_turn(ledger_of, outcome, reason, refused, truncated):
    provider = ScriptedProvider(lambda request: outcome if last(request) == "0" else ECHO(request))
    asked = run(ledger_of(), provider, ASKS[:2])
    assert asked.missing == {"0": reason}
    assert (asked.facts.n_refused, asked.facts.n_truncated, asked.facts.n_repairs) == (refused, truncated, 0)
    assert len(provider.asked) == 2
    again = run(ledger_of(), provider, ASKS[:2])
    assert again == asked
    assert len(provider.asked) == 2


def test_a_refused_repair_turn_is_missing_too(ledger_of):
    def script(request):
        return reply("", Stop.REFUSAL) if len(request.messages) == 3 else reply("x" if last(request) == "0" else "1")

    asked = run(ledger_of(), ScriptedProvider(script), ASKS[:2])
    assert asked.missing == {"0": "the model or its provider's filter refused"}
    assert (asked.facts.n_repairs, asked.facts.n_refused, asked.facts.n_invalid) == (1, 1, 0)


def test_nothing_valid_at_all_is_an_error_that_gives_the_commonest_reason(ledger_of):
    def script(request):
        return reply("", Stop.REFUSAL) if last(request) != "0" else reply("1", Stop.MAX_TOKENS)

    with pytest.raises(StageError, match=r"test: none of 6 items got a valid reply; 5 times: the model or its provi"):
        run(ledger_of(), ScriptedProvider(script), ASKS)


def test_nothing_asked_is_nothing_wrong(ledger_of):
    asked = run(ledger_of(), ScriptedProvider(ECHO), [])
    assert (asked.values, asked.missing, asked.facts) == ({}, {}, CallFacts())


# -- stopping ---------------------------------------------------------------------------------


def one_fails_while(n_asked):
    """Item 1 is answered once so many were sent, and the others after it and a while."""

    async def hold(provider, request):
        if last(request) == "1":
            await until(lambda: len(provider.asked) == n_asked)
        elif last(request) != "0":
            await until(lambda: provider.finished >= 2)
            await asyncio.sleep(0.1)

    return hold


@pytest.mark.parametrize("error", [AccountError("no such key"), RequestError("no such model")])
def test_an_error_about_the_account_stops_after_calls_in_flight_are_recorded(ledger_of, error, monkeypatch):
    """Item 1 fails while 2 and 3 are in flight; 4 and 5 wait for leave to send and are never sent.

    Calls in flight may take as long as they need, not only the ledger's time of grace after a cancellation.
    """
    monkeypatch.setattr("m3i.ledger.single_call.GRACE_S", 0.01)
    provider = ScriptedProvider(lambda r: error if last(r) == "1" else ECHO(r), hold=one_fails_while(4))
    with pytest.raises(type(error), match="no such"):
        run(ledger_of(concurrency=3), provider, ASKS)
    assert sorted(last(r) for r in provider.asked) == ["0", "1", "2", "3"]
    assert provider.finished == 4
    replayed = ScriptedProvider(ECHO)
    values = run(ledger_of(), replayed, ASKS).values
    assert values == {str(n): n for n in range(6)}
    assert sorted(last(r) for r in replayed.asked) == ["1", "4", "5"]


def test_no_call_is_tried_again_after_the_stop(ledger_of):
    """Item 2 fails in passing while item 1's error ends the panel: without the stop it would be sent again."""
    faults = {"1": AccountError("no such key"), "2": Transient(message="500", status=500)}
    provider = ScriptedProvider(lambda r: faults.get(last(r)) or ECHO(r), hold=one_fails_while(3))
    with pytest.raises(AccountError):
        run(ledger_of(), provider, ASKS[:3])
    assert [last(r) for r in provider.asked] == ["0", "1", "2"]


def test_the_budget_stops_and_finished_answers_are_kept(ledger_of):
    worst = estimate(ASKS[0].request, price_of("scripted", "scripted-1", {"scripted-1": PRICE})).usd_at_most
    provider = ScriptedProvider(ECHO)
    with pytest.raises(BudgetError, match="budget_usd"):
        run(ledger_of(budget_usd=worst + 2.5 * COST), provider, ASKS)
    kept = len(provider.asked)
    assert kept == provider.finished == 3
    again = ScriptedProvider(ECHO)
    run(ledger_of(budget_usd=20), again, ASKS)
    assert len(again.asked) == 6 - kept


def test_a_missing_recording_and_an_outage_stop(ledger_of):
    provider = ScriptedProvider(lambda request: Transient(message="connection refused"))
    with pytest.raises(ReplayError):
        run(ledger_of(mode=LedgerMode.replay), provider, ASKS)
    assert provider.asked == []
    with pytest.raises(OutageError):
        run(ledger_of(deadline_s=0.2), provider, ASKS)
    assert {last(r) for r in provider.asked} == {"0"}


def test_ctrl_c_lets_calls_in_flight_be_recorded_and_begins_none(ledger_of):
    pressed = []

    async def hold(provider, request):
        if last(request) != "0":
            await until(lambda: pressed)
            await asyncio.sleep(0.1)

    provider = ScriptedProvider(ECHO, hold=hold)

    async def interrupted():
        panel = asyncio.create_task(ask_all(ledger_of(concurrency=3), provider, ASKS, purpose="test"))
        await until(lambda: len(provider.asked) == 4)
        panel.cancel()
        pressed.append(True)
        with pytest.raises(asyncio.CancelledError):
            await panel

    asyncio.run(interrupted())
    assert len(provider.asked) == provider.finished == 4
    again = ScriptedProvider(ECHO)
    run(ledger_of(), again, ASKS)
    assert len(again.asked) == 2


def test_an_error_in_the_reader_is_a_bug_and_comes_out_at_once(ledger_of):
    def read(text):
        raise KeyError("bug")

    provider = ScriptedProvider(ECHO)
    with pytest.raises(KeyError, match="bug"):
        run(ledger_of(), provider, [ask_of("1", read=read), *ASKS[2:]])
    assert len(provider.asked) == 1


# -- batches ----------------------------------------------------------------------------------


def test_batches_one_for_first_replies_and_one_for_repair_turns(ledger_of):
    def script(request):
        text = last(request)
        if text == "2":
            return TooLong("too long")
        return reply("x" if text in ("0", "1") else "5" if text.startswith("Again") else text)

    provider, ticks = ScriptedBatchProvider(script), []
    ledger = ledger_of(batch_poll_s=0.01)
    asked = run(ledger, provider, ASKS, mode=CallMode.batch, tick=lambda *t: ticks.append(t))
    assert asked.values == {"0": 5, "1": 5, "3": 3, "4": 4, "5": 5}
    assert list(asked.missing) == ["2"]
    assert [len(requests) for _, requests in provider.batches.values()] == [6, 2]
    assert (asked.facts.n_calls, asked.facts.n_repairs) == (7, 2)
    assert ticks[-1] == (6, 6)
    assert run(ledger, provider, ASKS, mode=CallMode.batch) == asked
    assert len(provider.batches) == 2


def test_batches_need_a_provider_that_has_them(ledger_of):
    with pytest.raises(ConfigError, match="mode = batch: scripted has no batch API"):
        run(ledger_of(), ScriptedProvider(ECHO), ASKS, mode=CallMode.batch)


def test_together_keeps_the_order_of_first_comers():
    assert together(["b1", "a1", "b2", "c1", "a2"], lambda x: x[0]) == ["b1", "b2", "a1", "a2", "c1"]


def test_repair_turns_repeat_the_reply_bounded_and_without_what_cannot_be_sent(ledger_of):
    provider = ScriptedProvider(lambda r: reply("1" if len(r.messages) == 3 else "\ud800\x00" + "x" * 50_000))
    asked = run(ledger_of(), provider, ASKS[:1])
    said = provider.asked[1].messages[1].text
    assert asked.values == {"0": 1}
    assert len(said) == 20_000
    assert said.startswith("�␀xxx")
    json.dumps(provider.asked[1].content()).encode()
