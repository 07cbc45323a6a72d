"""`gemini`: the real SDK over HTTP against a local server that speaks the Gemini API's wire format."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from m3i_gemini.client import GeminiProvider
from m3i_gemini.contents import read_response
from m3i_gemini.failures import status_error
from m3i_gemini.judge import GeminiJudge
from m3i_gemini.observer import Gemini
from m3i_gemini.options import ThinkingLevel

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
from m3i.llm.models import GEMINI
from tests.wire import WireServer
from tests.wire.cases import CASES, FOUND, Case, closed_port, full_backlog, request

T = TypeVar("T")
REQUEST = request("gemini", GEMINI)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    with WireServer() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
        monkeypatch.delenv("GOOGLE_GENAI_USE_VERTEXAI", raising=False)
        yield server


def use(act: Callable[[GeminiProvider], Awaitable[T]]) -> T:
    """What `act` makes of a fresh client."""

    async def main() -> T:
        provider = GeminiProvider()
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
    assert (reply.stop, reply.model) == (Stop.END, GEMINI)
    assert reply.request_id.startswith("resp")
    assert json.loads(json.dumps(reply.raw)) == reply.raw
    assert reply.raw["candidates"][0]["finishReason"] == "STOP"
    [seen] = server.requests
    assert seen.body["generationConfig"]["responseJsonSchema"] == REQUEST.schema
    assert seen.body["systemInstruction"]["parts"][0]["text"] == REQUEST.system[0].text
    assert "temperature" not in seen.body["generationConfig"]
    assert not server.invalid


def test_what_the_cache_gives_is_taken_out_of_the_prompt(server: WireServer):
    async def both(provider: GeminiProvider) -> tuple[Reply, Reply]:
        other = request("gemini", GEMINI, first="3*4=12")
        return await provider.send(REQUEST, timeout_s=30), await provider.send(other, timeout_s=30)

    first, second = use(both)
    assert first.usage.cache_read_tokens == first.usage.cache_write_tokens == 0
    assert second.usage.cache_read_tokens > 0
    assert first.usage.input_tokens == second.usage.input_tokens + second.usage.cache_read_tokens
    assert second.raw["usageMetadata"]["promptTokenCount"] == first.usage.input_tokens


def test_thoughts_count_as_output_and_are_not_text(server: WireServer):
    reply = send(replace(REQUEST, options={"thinking_budget": 256}))
    usage = reply.raw["usageMetadata"]
    assert usage["thoughtsTokenCount"] > 0
    assert reply.usage.output_tokens == usage["candidatesTokenCount"] + usage["thoughtsTokenCount"]
    parts = [{"text": "hm", "thought": True}, {"text": "so"}]
    raw = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    assert read_response(raw, GEMINI).text == "so"


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"thinking_budget": 0}, {"thinkingBudget": 0}),
        ({"thinking_budget": -1}, {"thinkingBudget": -1}),
        ({"thinking_level": "low"}, {"thinkingLevel": "LOW"}),
    ],
)
def test_options_reach_the_wire(server: WireServer, options: dict[str, Any], sent: dict[str, Any]):
    assert send(replace(REQUEST, options=options, temperature=0.5)).stop is Stop.END
    config = server.requests[0].body["generationConfig"]
    assert {k.replace("_b", "B").replace("_l", "L"): v for k, v in config["thinkingConfig"].items()} == sent
    assert config["temperature"] == 0.5


def test_free_text(server: WireServer):
    assert send(replace(REQUEST, schema=None, system=())).text == "line 1: 3*4=13"
    body = server.requests[0].body
    assert "systemInstruction" not in body
    assert "responseMimeType" not in body["generationConfig"]


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
    assert [turn["role"] for turn in server.requests[-1].body["contents"]] == ["user", "model", "user"]


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


@pytest.mark.parametrize("finish", ["SAFETY", "PROHIBITED_CONTENT", "RECITATION", "BLOCKLIST", "SPII"])
def test_an_answer_that_the_filter_stops_is_a_refusal(finish: str):
    raw = {"candidates": [{"finishReason": finish, "safetyRatings": []}], "usageMetadata": {"promptTokenCount": 7}}
    reply = read_response(raw, GEMINI)
    assert (reply.stop, reply.text, reply.usage.input_tokens) == (Stop.REFUSAL, "", 7)


@pytest.mark.parametrize("finish", ["MALFORMED_RESPONSE", "OTHER", "SOMETHING_NEW", None])
def test_other_ends(finish: str | None):
    assert read_response({"candidates": [{"finishReason": finish}]}, GEMINI).stop is Stop.OTHER


def test_max_tokens_ends_a_reply(server: WireServer):
    reply = send(replace(REQUEST, max_tokens=20))
    assert reply.stop is Stop.MAX_TOKENS
    assert reply.usage.output_tokens == 20


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
        assert "GEMINI_API_KEY" in str(error)
    server.release()


def test_a_quota_of_the_day_is_not_waited_for():
    violation = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}
    details = {"error": {"details": [{"violations": [violation]}, {"retryDelay": "12s"}]}}
    assert isinstance(status_error(429, "quota exceeded", details, {}), AccountError)
    violation["quotaId"] = "GenerateRequestsPerMinutePerProjectPerModel"
    error = status_error(429, "quota exceeded", details, {})
    assert isinstance(error, Transient)
    assert error.retry_after_s == 12


@pytest.mark.parametrize(
    "body", ["[]", '"text"', "null", "{}", '{"candidates": 3}', '{"candidates": [{"content": 3}]}']
)
def test_json_that_is_no_answer(server: WireServer, monkeypatch: pytest.MonkeyPatch, body: str):
    from tests.wire.dialect import Result
    from tests.wire.dialect_gemini import GeminiDialect

    monkeypatch.setattr(GeminiDialect, "answer", lambda self, seen, mind: Result(200, body))
    error = failure()
    assert isinstance(error, Transient)
    assert (error.status, error.maybe_billed) == (200, True)


def test_no_connection_is_not_billed(server: WireServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", closed_port())
    error = failure()
    assert isinstance(error, Transient)
    assert (error.status, error.maybe_billed) == (None, False)


def test_a_connect_timeout_is_not_billed(server: WireServer, monkeypatch: pytest.MonkeyPatch):
    with full_backlog() as url:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", url)
        error = failure(timeout_s=1.0)
    assert isinstance(error, Transient)
    assert (error.status, error.maybe_billed) == (None, False)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://127.0.0.1"])
def test_a_base_url_that_is_none(server: WireServer, monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", url)
    error = failure()
    assert isinstance(error, RequestError)
    assert "GOOGLE_GEMINI_BASE_URL" in str(error)


@pytest.mark.parametrize("key", ["another-key-0123456789", "kéy-0123456789", "key\n0123456789"])
def test_a_wrong_key(server: WireServer, monkeypatch: pytest.MonkeyPatch, key: str):
    monkeypatch.setenv("GEMINI_API_KEY", key)
    error = failure()
    assert isinstance(error, AccountError)
    assert "GEMINI_API_KEY" in str(error)
    assert key not in str(error)


def test_no_key(server: WireServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GEMINI_API_KEY")
    error = failure()
    assert isinstance(error, AccountError)
    assert not server.requests


def test_the_other_variable(server: WireServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.setenv("GOOGLE_API_KEY", server.key)
    assert send().text == FOUND


def test_a_model_that_does_not_exist(server: WireServer):
    error = failure(request("gemini", "gemmini-pro"))
    assert isinstance(error, RequestError)
    assert "gemmini-pro" in str(error)
    assert "`model`" in str(error)


def test_a_client_can_be_used_after_it_was_closed(server: WireServer):
    async def twice(provider: GeminiProvider) -> Reply:
        await provider.send(REQUEST, timeout_s=30)
        await provider.aclose()
        return await provider.send(REQUEST, timeout_s=30)

    assert use(twice).text == FOUND


def test_the_terminal_stays_clean(server: WireServer):
    """Also with both keys set, for which the SDK has a warning."""
    script = (
        "import asyncio, logging; logging.basicConfig(level=logging.INFO)\n"
        "from m3i_gemini.client import GeminiProvider\n"
        "from tests.wire.cases import request\n"
        "import os; os.environ['GOOGLE_API_KEY'] = os.environ['GEMINI_API_KEY']\n"
        f"asyncio.run(GeminiProvider().send(request('gemini', '{GEMINI}'), timeout_s=30))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- batches ----------------------------------------------------------------------------------

REQUESTS = {f"{i:032x}": request("gemini", GEMINI, first=f"3*4={10 + i}", temperature=1.0) for i in range(4)}


def test_the_provider_takes_batches():
    assert isinstance(GeminiProvider(), BatchProvider)


def test_a_batch(server: WireServer):
    async def whole(provider: GeminiProvider) -> None:
        server.batches_end = False
        batch = await provider.submit("m3i-1", REQUESTS)
        assert await provider.state(batch) is BatchState.WORKING
        assert await provider.find("m3i-1", frozenset(REQUESTS)) == batch
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
            assert (reply.stop, reply.model) == (Stop.END, GEMINI)
            assert reply.usage.output_tokens > 0
            assert json.loads(json.dumps(reply.raw)) == reply.raw

    use(whole)
    assert not server.invalid
    assert server.repeated == 0


def test_a_batch_asks_what_single_calls_ask(server: WireServer):
    async def both(provider: GeminiProvider) -> None:
        await provider.submit("m3i-1", REQUESTS)
        for asked in REQUESTS.values():
            await provider.send(asked, timeout_s=30)

    use(both)
    assert server.repeated == len(REQUESTS)


def test_what_becomes_of_requests_in_a_batch(server: WireServer):
    server.script_batch("expired", "canceled", "errored", "too_long")

    async def whole(provider: GeminiProvider) -> Any:
        return await provider.collect(await provider.submit("m3i-1", REQUESTS))

    outcomes = use(whole)
    assert [type(outcomes[id]) for id in REQUESTS] == [Transient, Transient, Transient, TooLong]


def test_answers_that_belong_to_no_request_are_not_guessed_by_their_order(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
):
    from tests.wire.dialect_gemini import GeminiDialect

    answered = GeminiDialect.outcome
    monkeypatch.setattr(
        GeminiDialect, "outcome", lambda self, model, item: {**answered(self, model, item), "metadata": None}
    )

    async def whole(provider: GeminiProvider) -> Any:
        return await provider.collect(await provider.submit("m3i-1", REQUESTS))

    with pytest.raises(RequestError, match="mode=each"):
        use(whole)


def test_a_batch_is_found_by_its_name_behind_a_page_of_others(server: WireServer):
    one = dict(list(REQUESTS.items())[:1])

    async def whole(provider: GeminiProvider) -> None:
        assert await provider.find("m3i-1", frozenset(REQUESTS)) is None
        batch = await provider.submit("m3i-1", REQUESTS)
        for i in range(101):
            await provider.submit(f"other-{i}", one)
        assert await provider.find("m3i-1", frozenset(REQUESTS)) == batch
        assert await provider.find("m3i-2", frozenset(REQUESTS)) is None

    use(whole)


def test_a_batch_that_is_too_large_is_not_sent(server: WireServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("m3i_gemini.client.MAX_BATCH_BYTES", 4000)
    with pytest.raises(RequestError, match="mode=each"):
        use(lambda provider: provider.submit("m3i-1", REQUESTS))
    assert not server.requests


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_faults_about_a_batch(server: WireServer, monkeypatch: pytest.MonkeyPatch, case: Case):
    async def steps(provider: GeminiProvider) -> None:
        batch = await provider.submit("m3i-1", REQUESTS)
        monkeypatch.setattr("m3i_gemini.client.BATCH_CALL_S", 0.5)
        for step in (
            lambda: provider.submit("m3i-2", REQUESTS),
            lambda: provider.find("m3i-1", frozenset(REQUESTS)),
            lambda: provider.state(batch),
            lambda: provider.collect(batch),
        ):
            seen = len(server.requests)
            server.script(case.fault)
            with pytest.raises(case.error):
                await step()
            server.release()
            assert len(server.requests) == seen + 1, "the client retries by itself"

    use(steps)


def test_a_batch_that_the_provider_does_not_know(server: WireServer):
    with pytest.raises(RequestError):
        use(lambda provider: provider.state("batches/gone"))


# -- components -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Gemini, GeminiJudge])
def test_options_become_the_request(make: Callable[..., Gemini | GeminiJudge]):
    assert make().request_options() == {}
    assert make(thinking_budget=512).request_options() == {"thinking_budget": 512}
    assert make(thinking_level=ThinkingLevel.low).request_options() == {"thinking_level": "low"}
    component = make()
    assert component.family() == "gemini"
    assert component.provider().name == component.provider_name == "gemini"


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"thinking_budget": -2}, "thinking_budget"),
        ({"thinking_budget": 8192}, "thinking_budget"),
        ({"thinking_budget": 512, "thinking_level": ThinkingLevel.low}, "thinking_level"),
        ({"temperature": 3.0}, "temperature"),
    ],
)
@pytest.mark.parametrize("make", [Gemini, GeminiJudge])
def test_bad_options(make: Callable[..., Any], bad: dict[str, Any], word: str):
    with pytest.raises(ConfigError, match=word):
        make(**bad)


@pytest.mark.parametrize("make", [Gemini, GeminiJudge])
def test_without_a_key_it_says_what_to_do(make: Callable[..., Gemini | GeminiJudge], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GOOGLE_GENAI_USE_VERTEXAI", raising=False)
    with pytest.raises(ConfigError, match=r"GEMINI_API_KEY or GOOGLE_API_KEY.*ledger\.mode=replay"):
        make().require_key({})
    make().require_key({"GOOGLE_API_KEY": "x"})
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    make().require_key({})


def test_expected_thinking():
    assert Gemini().thinking_tokens() > Gemini(thinking_budget=100).thinking_tokens() == 100
    assert Gemini(thinking_budget=0).thinking_tokens() == 0
