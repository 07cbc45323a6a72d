"""Observer and judge `litellm`: the real library over HTTP against the wire server."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from m3i_litellm import keys
from m3i_litellm.client import LiteLLMProvider, sdk
from m3i_litellm.judge import LiteLLMJudge
from m3i_litellm.observer import LiteLLM

from m3i.artifacts import Answer, Problem
from m3i.config.settings import LedgerSettings
from m3i.errors import ConfigError
from m3i.interfaces import AuditRequest, BlindPair, JudgeRequest
from m3i.ledger import Ledger
from m3i.ledger.request import AccountError, Block, Message, ModelRequest, RequestError, Stop, TooLong, Transient
from m3i.llm.audit import audit_schema
from tests.core.llm_scripted import trace_of
from tests.wire import WireServer, faults

PROBLEM = Problem(id="p", prompt="48+7*6-15=?", answer="75")
RIGHT, WRONG = "7*6=42\n48+42=90\n90-15=75", "7*6=42\n48+42=91\n91-15=76"
TRACES = [trace_of(WRONG, "p.0"), trace_of(RIGHT, "p.1"), trace_of("7*6=43\n48+43=91", "p.2")]
VARIABLES = {name for names in keys.VARIABLES.values() for name in names} | {"OPENAI_API_KEY", "OPENAI_BASE_URL"}


@pytest.fixture
def server(monkeypatch):
    """With no variable of any provider but the key of OpenAI."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with WireServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", server.key)
        yield server
        assert server.invalid == []


def request_to(server, model="openai/gpt-5", **changes):
    request = ModelRequest(
        provider="litellm", model=model, system=(Block(text="Check the steps. " * 20, cache=True),),
        messages=(
            Message(role="user", blocks=(Block(text="2+2=5\n", cache=True), Block(text="What is wrong?"))),
        ),
        schema=audit_schema(layers=False), max_tokens=1000, options={"api_base": server.openai_url},
    )  # fmt: skip
    return replace(request, **changes)


def send(*requests, timeout_s=20.0):
    """Replies, or the errors in their place, of one client."""

    async def work():
        provider = LiteLLMProvider()
        found = []
        try:
            for request in requests:
                try:
                    found.append(await provider.send(request, timeout_s=timeout_s))
                except Exception as error:
                    found.append(error)
        finally:
            await provider.aclose()
        return found

    return asyncio.run(work())


def ledger_in(tmp_path, **settings):
    prices = {"openai/gpt-5": {"input": 1.0, "output": 10.0}}
    return Ledger(LedgerSettings(prices=prices, **settings), default_path=tmp_path / "ledger.sqlite")


def audited(ledger, observer, traces=TRACES):
    request = AuditRequest(
        items=[(PROBLEM, t) for t in traces], source=None, telemetry=None, target=None, ledger=ledger
    )
    return asyncio.run(observer.audit(request))


# -- components ---------------------------------------------------------------------------------


def test_the_observer_audits(server, tmp_path):
    ledger = ledger_in(tmp_path)
    audit = audited(ledger, LiteLLM(model="openai/gpt-5", api_base=server.openai_url))
    assert {(f.trace_id, f.quote) for f in audit.findings} == {
        ("p.0", "48+42=91"), ("p.2", "7*6=43"),
    }  # fmt: skip
    assert audit.audited == ("p.0", "p.1", "p.2")
    assert (audit.calls.provider, audit.calls.family, audit.calls.n_calls) == ("litellm", "gpt", 3)
    assert audit.calls.answered_by == {"gpt-5": 3}
    assert audit.calls.cache_read_tokens > 0
    assert audit.calls.cost_usd > 0
    assert len(server.requests) == 3
    assert audited(ledger, LiteLLM(model="openai/gpt-5", api_base=server.openai_url)).findings == audit.findings
    assert len(server.requests) == 3
    ledger.close()


def test_the_judge_judges(server, tmp_path):
    def answer(text):
        return Answer(
            problem_id="p", seed=0, completion_ids=(1,), text=text, correct=False, answer=None, truncated=False
        )

    pairs = [
        BlindPair(key="1", problem=PROBLEM, a=answer(RIGHT), b=answer(WRONG)),
        BlindPair(key="2", problem=PROBLEM, a=answer(WRONG), b=answer(RIGHT)),
    ]
    ledger = ledger_in(tmp_path)
    judge = LiteLLMJudge(model="openai/gpt-5", api_base=server.openai_url)
    judgment = asyncio.run(judge.judge(JudgeRequest(pairs=pairs, source=None, ledger=ledger)))
    assert [b.choice for b in judgment.ballots] == ["a", "b"]
    ledger.close()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model": " "}, "observer.model"), ({"api_base": "127.0.0.1"}, "observer.api_base"),
        ({"api_base": "https://user:hunter2@host/v1"}, r"observer.api_base = '\[an address\]'"),
        ({"reasoning_effort": "a lot"}, "observer.reasoning_effort"), ({"mode": "batch"}, "has no batch API"),
    ],
)  # fmt: skip
def test_bad_options_name_themselves(options, match):
    with pytest.raises(ConfigError, match=match):
        LiteLLM(**{"model": "openai/gpt-5", **options})


def test_the_model_is_required():
    with pytest.raises(TypeError, match="model"):
        LiteLLM()


# -- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "api_base", "expected"),
    [
        ("openai/gpt-5", None, ("OPENAI_API_KEY",)), ("gpt-4o", None, ("OPENAI_API_KEY",)),
        ("claude-sonnet-4-5-20250929", None, ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")),
        ("mistral/mistral-large-latest", None, ("MISTRAL_API_KEY",)),
        ("openai/gpt-5", "https://gateway.example.com/v1", ("OPENAI_API_KEY",)),
        ("openai/qwen", "http://127.0.0.1:8000/v1", ()), ("openai/qwen", "http://localhost:1/v1", ()),
        ("openai/qwen", "http://10.0.0.7:8000/v1", ()), ("openai/qwen", "http://[::1]:8000/v1", ()),
        ("ollama_chat/qwen3", None, ()), ("hosted_vllm/x", None, ()), ("bedrock/anthropic.claude-x", None, ()),
    ],
)  # fmt: skip
def test_which_key_a_model_needs(model, api_base, expected):
    assert LiteLLM(model=model, api_base=api_base).keys() == expected


def test_no_key_is_said_at_once_and_without_the_import():
    code = (
        "import sys\n"
        "from m3i_litellm.observer import LiteLLM\n"
        "try: LiteLLM(model='openai/gpt-5').require_key({})\n"
        "except Exception as error: print(error)\n"
        "LiteLLM(model='openai/gpt-5').require_key({'OPENAI_API_KEY': 'x'})\n"
        "LiteLLM(model='openai/x', api_base='http://127.0.0.1:1/v1').provider()\n"
        "print('litellm' in sys.modules, 'openai' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message, imported = done.stdout.splitlines()
    assert "set OPENAI_API_KEY in the environment" in message
    assert "observer=llamacpp" in message
    assert imported == "False False"


@pytest.mark.parametrize(
    "provider",
    ["openai", "anthropic", "gemini", "groq", "mistral", "deepseek", "xai", "openrouter", "together_ai", "cohere",
     "perplexity", "fireworks_ai", "deepinfra", "nvidia_nim", "cerebras", "moonshot", "codestral", "huggingface"],
)  # fmt: skip
def test_the_variables_are_those_that_litellm_looks_at(monkeypatch, provider):
    litellm = sdk()
    for name in [*VARIABLES, *keys.named_variables(f"{provider}/x")]:
        monkeypatch.delenv(name, raising=False)
    missing = litellm.validate_environment(f"{provider}/some-model")["missing_keys"]
    assert missing
    assert set(missing) & set(keys.named_variables(f"{provider}/some-model"))


def test_a_server_of_ones_own_is_sent_no_key_of_another(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    server.key = "none"
    monkeypatch.setenv("MISTRAL_API_KEY", "mistral-key-0123456789")
    (reply,) = send(request_to(server, "openai/gpt-5"))
    assert reply.stop is Stop.END
    assert server.requests[0].headers["authorization"] == "Bearer none"


# -- replies ------------------------------------------------------------------------------------


def test_request_and_reply(server):
    first, second = send(request_to(server), request_to(server, options={
        "api_base": server.openai_url, "reasoning_effort": "low",
    }))  # fmt: skip
    body = server.requests[0].body
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == "2+2=5\nWhat is wrong?"
    assert body["max_completion_tokens"] == 1000
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == audit_schema(layers=False)
    assert not {"temperature", "api_base", "num_retries", "drop_params", "metadata"} & set(body)
    assert json.loads(first.text)["findings"]
    assert (first.stop, first.model) == (Stop.END, "gpt-5")
    assert first.request_id.startswith("req_")
    assert json.loads(json.dumps(first.raw)) == first.raw
    assert server.requests[1].body["reasoning_effort"] == "low"
    assert second.usage.cache_read_tokens > 0
    whole = first.usage.input_tokens + first.usage.cache_read_tokens
    assert second.usage.input_tokens + second.usage.cache_read_tokens == whole


@pytest.mark.parametrize(
    ("mind", "stop"), [("refusing", Stop.REFUSAL), ("truncating", Stop.MAX_TOKENS), ("empty", Stop.END)]
)
def test_how_replies_end(server, mind, stop):
    server.script(faults.by(mind))
    (reply,) = send(request_to(server))
    assert reply.stop is stop
    assert reply.usage.input_tokens > 0
    if mind != "truncating":
        assert reply.text == ""


def test_claude_through_litellm_is_told_what_to_cache(server, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", server.key)
    # no schema: litellm sends it in the form of an earlier beta, which the wire server does not speak
    model = "anthropic/claude-sonnet-4-5-20250929"
    request = request_to(server, model, options={"api_base": server.url}, schema=None)
    first, second = send(request, replace(request, replicate=1))
    body = server.requests[0].body
    assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert [("cache_control" in part) for part in body["messages"][0]["content"]] == [True, False]
    assert (first.usage.cache_write_tokens > 0, first.usage.cache_read_tokens) == (True, 0)
    assert second.usage.cache_read_tokens == first.usage.cache_write_tokens
    assert second.usage.input_tokens == first.usage.input_tokens > 0


# -- faults -------------------------------------------------------------------------------------

FAULTS = [
    # what happens, error, status, retry-after, may have been billed
    (faults.rate_limited(), Transient, 429, None, False),
    (faults.rate_limited(7), Transient, 429, 7.0, False),
    (faults.rate_limited_until(9, clock_error_s=4000), Transient, 429, 9.0, False),
    (faults.overloaded(), Transient, 529, None, False),
    (faults.server_error(), Transient, 500, None, False),
    (faults.unavailable(), Transient, 503, None, False),
    (faults.malformed(), Transient, 200, None, True),
    (faults.truncated(), Transient, 200, None, True),
    (faults.closed(), Transient, None, None, True),
    (faults.closed(before=True), Transient, None, None, True),
    (faults.revoked(), AccountError, None, None, False),
    (faults.status(403), AccountError, None, None, False),
    (faults.no_credit(), AccountError, None, None, False),
    (faults.too_long(), TooLong, None, None, False),
    (faults.status(400), RequestError, None, None, False),
]


@pytest.mark.parametrize(
    ("fault", "kind", "status", "retry_after_s", "maybe_billed"),
    FAULTS,
    ids=[f"{f.kind}-{f.status}-{f.type}-{i}" for i, (f, *_) in enumerate(FAULTS)],
)
def test_faults(server, fault, kind, status, retry_after_s, maybe_billed):
    server.script(fault)
    error, after = send(request_to(server), request_to(server))
    assert type(error) is kind, error
    if kind is Transient:
        assert (error.status, error.maybe_billed) == (status, maybe_billed)
        assert error.retry_after_s == (None if retry_after_s is None else pytest.approx(retry_after_s, abs=0.01))
    else:
        assert "openai/gpt-5" in str(error)
    assert "litellm." not in str(error)
    assert len(server.requests) == 2  # no retry of its own
    assert after.stop is Stop.END


@pytest.mark.parametrize("fault", [faults.hold(), faults.drip(0.02)], ids=["hold", "drip"])
def test_slow_answers_end_in_time(server, fault):
    server.script(fault)
    (error,) = send(request_to(server), timeout_s=0.7)
    assert type(error) is Transient
    assert (error.status, error.maybe_billed) == (None, True)
    server.release()


def test_connections_that_are_refused_or_never_made():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:  # fill the queue of connections: the next one is not answered
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        request = ModelRequest(
            provider="litellm", model="openai/gpt-5", system=(),
            messages=(Message(role="user", blocks=(Block(text="x"),)),), schema=None, max_tokens=10,
            options={"api_base": f"http://127.0.0.1:{port}/v1"},
        )  # fmt: skip
        (never,) = send(request, timeout_s=1.0)
        for one in waiting:
            one.close()
    (refused,) = send(request)
    for error in (never, refused):
        assert type(error) is Transient, error
        assert (error.status, error.maybe_billed) == (None, False)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model": "openai/no-such-model"}, "404.*`model`"),
        ({"model": "nosuchprovider/x"}, "LLM Provider NOT provided"),
        ({"temperature": 0.3}, "temperature"),  # gpt-5 takes none: an error, not dropped
    ],
)
def test_what_is_not_accepted_is_an_error(server, changes, match):
    (error,) = send(request_to(server, **changes))
    assert type(error) is RequestError, error
    with pytest.raises(RequestError, match=match):
        raise error


def test_a_key_that_no_header_can_hold(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "half\nother-half-of-the-key")
    (error,) = send(request_to(server))
    assert type(error) is AccountError, error
    assert "other-half" not in str(error)
    assert server.requests == []


def test_a_failing_call_prints_nothing_and_shows_no_key(server, capfd, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    server.script(*(faults.echoing(code) for code in (500, 401, 400, 403)), faults.malformed())
    errors = send(*[request_to(server)] * 5)
    assert all(isinstance(error, Exception) for error in errors)
    ledger = ledger_in(tmp_path)
    server.script(faults.echoing(401))
    with pytest.raises(AccountError) as caught:
        audited(ledger, LiteLLM(model="openai/gpt-5", api_base=server.openai_url))
    ledger.close()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    shown = "\n".join([*map(str, errors), *map(repr, errors), str(caught.value)])
    assert server.key not in shown + caplog.text
    assert "[OPENAI_API_KEY]" in shown
    assert server.key.encode() not in written


def test_nothing_is_fetched_cached_or_called_back():
    litellm = sdk()
    assert litellm.cache is None
    assert not [*litellm.callbacks, *litellm.input_callback, *litellm.success_callback, *litellm.failure_callback]
    assert (litellm.num_retries, litellm.drop_params, litellm.modify_params) == (0, False, False)


def test_its_import_asks_the_network_for_nothing(tmp_path):
    code = """
import socket, sys

def refuse(*given):
    sys.exit(f"connects to {given}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from m3i_litellm.client import sdk
sdk()
print("quiet")
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LITELLM")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "quiet\n", "")


def test_two_clients_at_once_and_after_one_another(server):
    async def work():
        first, second = LiteLLMProvider(), LiteLLMProvider()
        await asyncio.gather(*(p.send(request_to(server), timeout_s=20) for p in (first, second)))
        await first.aclose()
        reply = await second.send(request_to(server), timeout_s=20)  # its connection is still there
        await second.aclose()
        await second.aclose()
        third = LiteLLMProvider()
        again = await third.send(request_to(server), timeout_s=20)
        await third.aclose()
        return reply, again

    replies = asyncio.run(work())
    assert [reply.stop for reply in replies] == [Stop.END, Stop.END]
