"""`claude`: the real SDK over HTTP against a local server that speaks Anthropic's wire format."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from m3i_claude.client import AnthropicProvider
from m3i_claude.judge import ClaudeJudge
from m3i_claude.messages import message_params
from m3i_claude.observer import Claude
from m3i_claude.options import Effort, Thinking

from m3i.errors import ConfigError
from m3i.ledger.request import (
    AccountError,
    BatchProvider,
    BatchState,
    Block,
    CallError,
    Message,
    ModelRequest,
    Reply,
    RequestError,
    Stop,
    TooLong,
    Transient,
)
from m3i.llm.models import CLAUDE
from tests.wire import WireServer, faults
from tests.wire.cases import CASES, FOUND, Case, closed_port, full_backlog, request

T = TypeVar("T")
REQUEST = request("anthropic", CLAUDE)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    with WireServer() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
        yield server


def use(act: Callable[[AnthropicProvider], Awaitable[T]]) -> T:
    """What `act` makes of a fresh client."""

    async def main() -> T:
        provider = AnthropicProvider()
        try:
            return await act(provider)
        finally:
            await provider.aclose()

    return asyncio.run(main())


def send(asked: ModelRequest = REQUEST, timeout_s: float = 30.0) -> Reply:
    return use(lambda provider: provider.send(asked, timeout_s=timeout_s))


def failure(asked: ModelRequest = REQUEST, timeout_s: float = 30.0) -> CallError:
    with pytest.raises(CallError) as caught:
        send(asked, timeout_s)
    return caught.value


# -- answers ----------------------------------------------------------------------------------


def test_a_reply_to_a_schema(server: WireServer):
    reply = send()
    assert reply.text == FOUND
    assert (reply.stop, reply.model) == (Stop.END, CLAUDE)
    assert reply.request_id == "req_000000000000000000000001"
    assert json.loads(json.dumps(reply.raw)) == reply.raw
    assert reply.raw["id"].startswith("msg_")
    [seen] = server.requests
    assert seen.body["output_config"]["format"]["schema"]["additionalProperties"] is False
    assert "temperature" not in seen.body
    assert not server.invalid


def test_the_prefix_is_cached_and_the_three_parts_add_up(server: WireServer):
    async def both(provider: AnthropicProvider) -> tuple[Reply, Reply]:
        other = request("anthropic", CLAUDE, first="3*4=12")
        return await provider.send(REQUEST, timeout_s=30), await provider.send(other, timeout_s=30)

    first, second = use(both)
    assert first.usage.cache_read_tokens == 0
    assert first.usage.cache_write_tokens > 0
    assert second.usage.cache_read_tokens == first.usage.cache_write_tokens
    assert second.usage.cache_write_tokens == 0
    sums = {u.input_tokens + u.cache_read_tokens + u.cache_write_tokens for u in (first.usage, second.usage)}
    assert len(sums) == 1
    thinking = first.raw["usage"]["output_tokens_details"]["thinking_tokens"]
    assert first.usage.output_tokens > thinking > 0


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9])
def test_at_most_four_blocks_are_marked_and_the_first_among_them(server: WireServer, count: int):
    blocks = tuple(Block(text=f"part {i}. ", cache=i < count) for i in range(10))
    asked = replace(REQUEST, system=blocks[:2], messages=(Message(role="user", blocks=blocks[2:]),))
    assert send(asked).stop is Stop.END
    body = server.requests[0].body
    marked = [b["text"] for b in (*body["system"], *body["messages"][0]["content"]) if "cache_control" in b]
    assert len(marked) == min(count, 4)
    assert marked[:1] == ["part 0. "][:count]
    assert marked[-1:] == [f"part {count - 1}. "][:count]


def test_empty_blocks_are_left_out(server: WireServer):
    blocks = (Block(text=""), Block(text="say it"), Block(text="", cache=True))
    reply = send(
        replace(REQUEST, system=(Block(text="", cache=True),), messages=(Message(role="user", blocks=blocks),))
    )
    assert reply.stop is Stop.END
    assert "system" not in server.requests[0].body


def test_a_repair_turn(server: WireServer):
    server.mind = "invalid_once"
    first = send()
    with pytest.raises(json.JSONDecodeError):
        json.loads(first.text)
    turns = (
        Message(role="assistant", blocks=(Block(text=first.text),)),
        Message(role="user", blocks=(Block(text="?"),)),
    )
    assert send(replace(REQUEST, messages=(*REQUEST.messages, *turns))).text == FOUND


@pytest.mark.parametrize(
    ("mind", "stop", "text"),
    [
        ("refusing", Stop.REFUSAL, ""),
        ("empty", Stop.END, ""),
        ("truncating", Stop.MAX_TOKENS, FOUND[: len(FOUND) // 2]),
    ],
)
def test_replies_without_a_whole_text(server: WireServer, mind: str, stop: Stop, text: str):
    server.mind = mind
    reply = send()
    assert (reply.stop, reply.text) == (stop, text)


def test_max_tokens_ends_a_reply(server: WireServer):
    reply = send(replace(REQUEST, max_tokens=20))
    assert reply.stop is Stop.MAX_TOKENS
    assert reply.usage.output_tokens == 20


@pytest.mark.parametrize(
    ("model", "options", "sent"),
    [
        (CLAUDE, {"effort": "low"}, {"output_config": {"effort": "low"}}),
        (CLAUDE, {"thinking": "between_tools"}, {"thinking": {"type": "between_tools"}}),
        ("claude-sonnet-4-5", {"thinking_budget": 1024}, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("claude-sonnet-4-5", {"thinking": "disabled"}, {"thinking": {"type": "disabled"}}),
    ],
)
def test_options_reach_the_wire(server: WireServer, model: str, options: dict[str, Any], sent: dict[str, Any]):
    asked = request("anthropic", model, options=options, schema=None)
    assert send(asked).stop is Stop.END
    body = server.requests[0].body
    assert {name: body[name] for name in sent} == sent


# -- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_fault_becomes_the_right_error(server: WireServer, case: Case):
    server.script(case.fault)
    error = failure(timeout_s=case.timeout_s)
    assert type(error) is case.error
    assert len(server.requests) == 1, "the client retries by itself"
    assert not server.paid
    if isinstance(error, Transient):
        assert (error.status, error.maybe_billed) == (case.status, case.maybe_billed)
        assert error.retry_after_s == case.waits_s
    if isinstance(error, AccountError):
        assert "ANTHROPIC_API_KEY" in str(error)
    server.release()


def test_retry_after_in_milliseconds(server: WireServer):
    server.script(faults.status(429, headers={"retry-after-ms": "1500", "retry-after": "2"}))
    error = failure()
    assert isinstance(error, Transient)
    assert error.retry_after_s == 1.5


@pytest.mark.parametrize("value", ["soon", "nan", "-3", "1e999", ""])
def test_a_senseless_retry_after_says_nothing(server: WireServer, value: str):
    server.script(faults.status(429, headers={"retry-after": value}))
    error = failure()
    assert isinstance(error, Transient)
    assert error.retry_after_s is None


@pytest.mark.parametrize("body", ["[]", '"text"', "null", '{"type": "message"}', '{"content": 3, "usage": {}}'])
def test_json_that_is_no_message(server: WireServer, monkeypatch: pytest.MonkeyPatch, body: str):
    from tests.wire.dialect import Result
    from tests.wire.dialect_anthropic import AnthropicDialect

    monkeypatch.setattr(AnthropicDialect, "answer", lambda self, seen, mind: Result(200, body))
    error = failure()
    assert isinstance(error, Transient)
    assert (error.status, error.maybe_billed) == (200, True)


def test_no_connection_is_not_billed(server: WireServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", closed_port())
    error = failure()
    assert isinstance(error, Transient)
    assert (error.status, error.maybe_billed) == (None, False)


def test_a_connect_timeout_is_not_billed(server: WireServer, monkeypatch: pytest.MonkeyPatch):
    with full_backlog() as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        error = failure(timeout_s=1.0)
    assert isinstance(error, Transient)
    assert (error.status, error.maybe_billed) == (None, False)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://127.0.0.1"])
def test_a_base_url_that_is_none(server: WireServer, monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    error = failure()
    assert isinstance(error, RequestError)
    assert "ANTHROPIC_BASE_URL" in str(error)


@pytest.mark.parametrize("key", ["another-key-0123456789", "kéy-0123456789", "key\n0123456789"])
def test_a_wrong_key(server: WireServer, monkeypatch: pytest.MonkeyPatch, key: str):
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    error = failure()
    assert isinstance(error, AccountError)
    assert "ANTHROPIC_API_KEY" in str(error)
    assert key not in str(error)


def test_no_key(server: WireServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    error = failure()
    assert isinstance(error, AccountError)
    assert not server.requests


def test_the_other_variable(server: WireServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", server.key)
    assert send().text == FOUND


def test_a_model_that_does_not_exist(server: WireServer):
    error = failure(request("anthropic", "clod-sonnet"))
    assert isinstance(error, RequestError)
    assert "clod-sonnet" in str(error)
    assert "`model`" in str(error)


def test_what_the_newest_models_refuse(server: WireServer):
    error = failure(replace(REQUEST, options={"thinking_budget": 2000}))
    assert isinstance(error, RequestError)
    assert "thinking_budget" in str(error)


def test_a_temperature_is_refused_before_anything_is_sent(server: WireServer):
    assert "temperature" in str(failure(replace(REQUEST, temperature=0.0)))
    assert not server.requests


def test_a_client_can_be_used_after_it_was_closed(server: WireServer):
    async def twice(provider: AnthropicProvider) -> Reply:
        await provider.send(REQUEST, timeout_s=30)
        await provider.aclose()
        return await provider.send(REQUEST, timeout_s=30)

    assert use(twice).text == FOUND


def test_the_terminal_stays_clean(server: WireServer):
    """Also with both keys set, for which the SDK has a warning."""
    script = (
        "import asyncio, logging; logging.basicConfig(level=logging.INFO)\n"
        "from m3i_claude.client import AnthropicProvider\n"
        "from tests.wire.cases import request\n"
        "import os; os.environ['ANTHROPIC_AUTH_TOKEN'] = 'x' * 20\n"
        f"asyncio.run(AnthropicProvider().send(request('anthropic', '{CLAUDE}'), timeout_s=30))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- batches ----------------------------------------------------------------------------------

REQUESTS = {f"{i:032x}": request("anthropic", CLAUDE, first=f"3*4={10 + i}") for i in range(4)}


def test_the_provider_takes_batches():
    assert isinstance(AnthropicProvider(), BatchProvider)


def test_a_batch(server: WireServer):
    async def whole(provider: AnthropicProvider) -> None:
        server.batches_end = False
        batch = await provider.submit("m3i-1", REQUESTS)
        assert await provider.state(batch) is BatchState.WORKING
        server.batches_end = True
        assert await provider.state(batch) is BatchState.ENDED
        replies = await provider.collect(batch)
        assert set(replies) == set(REQUESTS)
        for i, id in enumerate(REQUESTS):
            reply = replies[id]
            assert isinstance(reply, Reply)
            assert json.loads(reply.text)["findings"] == (
                [] if i == 2 else [{"step": 1, "quote": f"3*4={10 + i}", "correction": "3*4=12"}]
            )
            assert reply.stop is Stop.END
            assert reply.usage.output_tokens > 0
            assert json.loads(json.dumps(reply.raw)) == reply.raw

    use(whole)
    assert not server.invalid
    assert server.repeated == 0


def test_what_becomes_of_requests_in_a_batch(server: WireServer):
    server.script_batch("expired", "canceled", "errored", "too_long")

    async def whole(provider: AnthropicProvider) -> Any:
        return await provider.collect(await provider.submit("m3i-1", REQUESTS))

    outcomes = use(whole)
    assert [type(outcomes[id]) for id in REQUESTS] == [Transient, Transient, Transient, TooLong]
    assert not any(o.maybe_billed for o in outcomes.values() if isinstance(o, Transient))


@pytest.mark.parametrize("ended", [False, True])
def test_a_batch_is_found_again(server: WireServer, ended: bool):
    server.batches_end = ended
    fewer = dict(list(REQUESTS.items())[:2])

    async def whole(provider: AnthropicProvider) -> None:
        assert await provider.find("m3i-1", frozenset(REQUESTS)) is None
        await provider.submit("m3i-0", fewer)
        batch = await provider.submit("m3i-1", REQUESTS)
        await provider.submit("m3i-2", fewer)
        assert await provider.find("m3i-1", frozenset(REQUESTS)) == batch
        assert await provider.find("m3i-1", frozenset({"a", "b", "c"})) is None

    use(whole)


def test_an_ended_batch_of_the_same_requests_under_another_name_is_not_taken_for_it(server: WireServer):
    async def whole(provider: AnthropicProvider) -> None:
        await provider.submit("m3i-1", REQUESTS)
        assert await provider.find("m3i-2", frozenset(REQUESTS)) is None
        mine = await provider.submit("m3i-2", REQUESTS)
        await provider.submit("m3i-3", REQUESTS)
        assert await provider.find("m3i-2", frozenset(REQUESTS)) == mine

    use(whole)


def test_a_batch_is_found_behind_a_page_of_others(server: WireServer):
    one = dict(list(REQUESTS.items())[:1])

    async def whole(provider: AnthropicProvider) -> None:
        batch = await provider.submit("m3i-1", REQUESTS)
        for i in range(101):
            await provider.submit(f"other-{i}", one)
        assert await provider.find("m3i-1", frozenset(REQUESTS)) == batch

    use(whole)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_faults_about_a_batch(server: WireServer, monkeypatch: pytest.MonkeyPatch, case: Case):
    async def steps(provider: AnthropicProvider) -> None:
        batch = await provider.submit("m3i-1", REQUESTS)
        monkeypatch.setattr("m3i_claude.client.BATCH_CALL_S", 0.5)
        for step in (
            lambda: provider.submit("m3i-2", REQUESTS),
            lambda: provider.find("m3i-1", frozenset(REQUESTS)),
            lambda: provider.state(batch),
            lambda: provider.collect(batch),
        ):
            server.script(case.fault)
            with pytest.raises(case.error):
                await step()
            server.release()

    use(steps)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_faults_while_a_batch_brings_its_results(server: WireServer, monkeypatch: pytest.MonkeyPatch, case: Case):
    async def steps(provider: AnthropicProvider) -> None:
        batch = await provider.submit("m3i-1", REQUESTS)
        monkeypatch.setattr("m3i_claude.client.BATCH_CALL_S", 0.5)
        server.script(faults.ok(), case.fault)  # the SDK asks where the results are, then for them
        with pytest.raises(case.error):
            await provider.collect(batch)
        assert server.unspent == 0
        server.release()

    use(steps)


def test_a_batch_that_the_provider_does_not_know(server: WireServer):
    with pytest.raises(RequestError):
        use(lambda provider: provider.state("msgbatch_gone"))


# -- components -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Claude, ClaudeJudge])
def test_options_become_the_request(make: Callable[..., Claude | ClaudeJudge]):
    assert make().request_options() == {}
    assert make(effort=Effort.low, thinking=Thinking.adaptive).request_options() == {
        "effort": "low",
        "thinking": "adaptive",
    }
    component = make(model="claude-sonnet-4-5", thinking_budget=2048)
    assert component.request_options() == {"thinking_budget": 2048}
    assert component.family() == "claude"
    assert component.provider().name == component.provider_name == "anthropic"


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"thinking_budget": 1023}, "thinking_budget"),
        ({"thinking_budget": 8192}, "thinking_budget"),
        ({"thinking_budget": 2048, "thinking": Thinking.adaptive}, "thinking"),
        ({"temperature": 0.0}, "temperature"),
        ({"model": " "}, "model"),
    ],
)
@pytest.mark.parametrize("make", [Claude, ClaudeJudge])
def test_bad_options(make: Callable[..., Any], bad: dict[str, Any], word: str):
    with pytest.raises(ConfigError, match=word):
        make(**bad)


@pytest.mark.parametrize("make", [Claude, ClaudeJudge])
def test_without_a_key_it_says_what_to_do(make: Callable[..., Claude | ClaudeJudge]):
    with pytest.raises(ConfigError, match=r"ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN.*ledger\.mode=replay"):
        make().require_key({})
    make().require_key({"ANTHROPIC_AUTH_TOKEN": "x"})


def test_expected_thinking():
    assert Claude().thinking_tokens() > 0
    assert Claude(thinking=Thinking.between_tools).thinking_tokens() == 0
    assert Claude(model="claude-sonnet-4-5").thinking_tokens() == 0
    assert Claude(model="claude-sonnet-4-5", thinking=Thinking.adaptive).thinking_tokens() > 0


def test_params_of_a_request_are_json():
    assert json.loads(json.dumps(message_params(REQUEST))) == message_params(REQUEST)
