"""Planted keys are nowhere but in the environment: not on disk, not in logs, not on the screen, whatever fails."""

import asyncio
import base64
import contextlib
import importlib
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from planted_secrets import KEY, OTHERS, SECRETS
from small_run import SMALL

from bench.secret_search import count_secrets
from m3i.artifacts import Answer, Problem
from m3i.cli.exits import fail
from m3i.config.registry import build
from m3i.config.settings import LedgerSettings
from m3i.errors import M3IError
from m3i.interfaces import BlindPair, JudgeRequest
from m3i.ledger import Ledger
from m3i.ledger.secrets import install_log_redaction
from m3i.stages.injections import load
from m3i.wording.formats import HIDDEN
from tests.wire import WireServer, faults

MODELS = {"claude": "claude-sonnet-5-5", "gemini": "gemini-2.5-pro", "litellm": "openai/gpt-5"}


# -- the search itself ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda s: s,
        lambda s: f"{{'api_key': '{s}'}}",
        lambda s: quote(s, safe=""),
        lambda s: base64.b64encode(s.encode()).decode(),
        lambda s: base64.b64encode(f"user:{s}".encode()).decode(),
        lambda s: base64.urlsafe_b64encode(f"{{'k': '{s}'}}".encode()).decode(),
        lambda s: s.encode().hex(),
    ],
)
def test_the_search_finds_a_secret_in_every_form_and_kind_of_file(write, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "run.log").write_text("nothing here\n")
    assert count_secrets(SECRETS, [tmp_path], ["nothing"]) == 0
    (tmp_path / "deep" / "run.log").write_text(f"before {write(KEY)} after\n")
    assert count_secrets(SECRETS, [tmp_path]) == 1
    (tmp_path / "deep" / "run.log").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
        connection.execute("CREATE TABLE t (x TEXT)")
        connection.execute("INSERT INTO t VALUES (?)", ("x" * 9000 + write(KEY) + "y" * 9000,))
        connection.commit()
    assert count_secrets(SECRETS, [tmp_path]) >= 1
    assert count_secrets(SECRETS, [], [f"<p>{write(KEY)}</p>"]) == 1


# -- clients, ledger and logs ---------------------------------------------------------------------


@pytest.fixture
def wire(monkeypatch):
    """A server to which every client is pointed, with the planted keys."""
    with WireServer(key=KEY) as server:
        for name in ("ANTHROPIC_AUTH_TOKEN", "GOOGLE_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {**OTHERS, **server.environment()}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        yield server


@pytest.fixture
def log(tmp_path):
    """A file with all that any library logs."""
    install_log_redaction()
    handler = logging.FileHandler(tmp_path / "run.log")
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield tmp_path / "run.log"
    root.setLevel(level)
    root.removeHandler(handler)
    handler.close()


def judge_of(provider, server):
    options = {"model": MODELS[provider]} | ({"api_base": server.openai_url} if provider == "litellm" else {})
    plugin = importlib.import_module(f"m3i_{provider}")
    return build([(plugin, "m3i", "")]).find("judge", provider).cls(**options)


def pairs():
    """Four comparisons."""
    made = []
    for i in range(4):
        answers = [
            Answer(
                problem_id=f"p{i}", seed=0, completion_ids=(1,), text=f"{i}+1={value}", correct=False, answer=None,
                truncated=False,
            )
            for value in (i + 1, i + 2)
        ]  # fmt: skip
        problem = Problem(id=f"p{i}", prompt=f"{i}+1=?", answer=str(i + 1))
        made.append(BlindPair(key=f"pair-{i}", problem=problem, a=answers[0], b=answers[1]))
    return made


FAILURES = {
    "passing errors that repeat the key": [faults.ok(), faults.echoing(500), faults.echoing(429), faults.echoing(503)],
    "a forbidden key, repeated": [faults.ok(), faults.echoing(403)],
    "a refused request that repeats the key": [faults.echoing(400)],
    "an unknown model that repeats the key": [faults.echoing(404)],
    "a revoked key": [faults.ok(), faults.revoked()],
    "an outage that repeats the key": [faults.ok(), *[faults.echoing(500)] * 12],
    "broken bodies": [faults.ok(), faults.malformed(), faults.truncated()],
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(
    "provider", [pytest.param(name, marks=() if name == "claude" else pytest.mark.slow) for name in MODELS]
)
def test_no_failing_call_writes_or_says_its_key(provider, failure, wire, log, tmp_path, capfd):
    wire.script(*FAILURES[failure])
    # litellm imports most of itself at its first call: seconds on a busy machine. An outage lasts to the deadline.
    deadline_s = 5.0 if "outage" in failure else 120.0
    settings = LedgerSettings(budget_usd=None, concurrency=1, timeout_s=60.0, deadline_s=deadline_s)
    ledger = Ledger(settings, default_path=tmp_path / "ledger.sqlite")
    said, errors = [], []
    try:
        judgment = asyncio.run(judge_of(provider, wire).judge(JudgeRequest(pairs=pairs(), source=None, ledger=ledger)))
        said = [ballot.reason for ballot in judgment.ballots]
    except M3IError as error:
        errors = chain(error)
        logging.getLogger("m3i").exception("the run ended")
    else:
        assert failure in ("passing errors that repeat the key", "broken bodies")
    assert len(wire.requests) >= 1
    assert any("planted" in str(seen.headers) for seen in wire.requests)
    shown = capfd.readouterr()
    # With the file open, so that its write-ahead log is searched too, and again when it is closed.
    assert count_secrets(SECRETS, [tmp_path], [*said, *errors, shown.out, shown.err]) == 0
    ledger.close()
    assert count_secrets(SECRETS, [tmp_path]) == 0
    assert log.stat().st_size > 0
    logged = log.read_text()
    assert failure not in ("a forbidden key, repeated",) or "[ANTHROPIC_API_KEY]" in logged or "_API_KEY]" in logged


def chain(error):
    """The words of an error and of all that it came from."""
    words, seen = [], error
    while seen is not None:
        words += [str(seen), repr(seen), *map(str, seen.args)]
        seen = seen.__cause__ or seen.__context__
    return words


def test_a_reply_that_repeats_a_key_is_kept_without_it(wire, tmp_path):
    """The model never saw it, but a proxy may put it there: what is kept and handed on lacks it."""
    from m3i.ledger.request import Block, Message, ModelRequest, Reply, Stop, Usage

    class Echo:
        name = "anthropic"

        async def send(self, request, *, timeout_s):
            text = f"the key is {KEY}"
            return Reply(text=text, stop=Stop.END, usage=Usage(), model=text, request_id=KEY, raw={"a": [{KEY: text}]})

        async def aclose(self):
            pass

    request = ModelRequest(
        provider="anthropic", model="claude-sonnet-5-5", system=(), schema=None, max_tokens=64,
        messages=(Message(role="user", blocks=(Block(text="hello"),)),),
    )  # fmt: skip
    ledger = Ledger(LedgerSettings(budget_usd=None), default_path=tmp_path / "ledger.sqlite")
    answer = asyncio.run(ledger.ask(Echo(), request, purpose=f"say {KEY}"))
    reply = answer.reply
    assert count_secrets(SECRETS, [tmp_path], [reply.text, reply.model, reply.request_id, str(reply.raw)]) == 0
    assert reply.text == "the key is [ANTHROPIC_API_KEY]"
    ledger.close()
    assert count_secrets(SECRETS, [tmp_path]) == 0


def test_a_prompt_that_holds_a_key_is_not_sent(wire, tmp_path):
    ledger = Ledger(LedgerSettings(budget_usd=None), default_path=tmp_path / "ledger.sqlite")
    asked = pairs()
    asked[0] = BlindPair(key="pair-0", problem=Problem(id="p0", prompt=KEY, answer="1"), a=asked[0].a, b=asked[0].b)
    with pytest.raises(M3IError, match="ANTHROPIC_API_KEY"):
        asyncio.run(judge_of("claude", wire).judge(JudgeRequest(pairs=asked, source=None, ledger=ledger)))
    ledger.close()
    assert KEY not in str([seen.body for seen in wire.requests])
    assert count_secrets(SECRETS, [tmp_path]) == 0


# -- the command line -----------------------------------------------------------------------------


@dataclass
class Done:
    """One finished command."""

    code: int
    out: str
    err: str


def m3i(folder, server, *words):
    """`python -m m3i` in a folder, with the planted environment."""
    environment = {k: v for k, v in os.environ.items() if k not in ("ANTHROPIC_AUTH_TOKEN", "GOOGLE_API_KEY")}
    environment |= {**OTHERS, **server.environment(), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [sys.executable, "-m", "m3i", *words], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )
    return Done(done.returncode, done.stdout, done.stderr)


def nothing_found(folder, done):
    return count_secrets(SECRETS, [folder], [done.out, done.err]) == 0


TYPED = [
    f"observer.claude.model={KEY}",
    f"+api_key={KEY}",
    f"observer.claude.model=a,{KEY},b",
    f"trace.file=/x/{quote(KEY, safe='')}.jsonl",
    f"trace.file='https://host/?key={OTHERS['HF_TOKEN']}'",
    f"ledger.account={base64.b64encode(KEY.encode()).decode()}",
    f"{KEY}=1",
    "ledger.account=sk-ant-api03-not-in-any-variable-0123456789",
    "observer.claude.model=${oc.env:ANTHROPIC_API_KEY}",
    "ledger.account='${oc.env:HF_TOKEN}'",
]


@pytest.mark.parametrize("word", TYPED, ids=range(len(TYPED)))
def test_a_key_typed_on_the_command_line_is_refused_and_not_repeated(word, wire, tmp_path):
    done = m3i(tmp_path, wire, "observer=checker+claude", word, f"store.root={tmp_path}/store")
    assert done.code == 2
    assert done.err.startswith("m3i: ")
    assert len(done.err.strip().split("\n")) == 1
    assert "environment" in done.err
    assert nothing_found(tmp_path, done)
    assert "not-in-any-variable" not in done.err
    assert not list(tmp_path.rglob("overrides.yaml")) or "oc.env" in word
    assert wire.requests == []


def test_an_error_is_one_line_that_a_terminal_shows_as_it_is(monkeypatch, capsys):
    """A provider's or a proxy's error text is repeated there: it cannot clear the screen, nor hold a key."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    for injection in load():
        assert fail(f"Anthropic answered 403: {injection.text} (key {KEY})") == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1
        assert not HIDDEN.search(shown.err.rstrip("\n"))
        assert count_secrets(SECRETS, [], [shown.err]) == 0


PRESETS = {
    "an option": "observer:\n  claude:\n    prompt_file: '{key}'\n",
    "an unknown option": "observer:\n  claude:\n    api_key: '{key}'\n",
    "a nested value": "ledger:\n  prices:\n    some-model: '{key}'\n",
    "a name": "ledger:\n  prices:\n    '{key}':\n      input: 1\n      output: 2\n",
}


@pytest.mark.parametrize("where", PRESETS)
def test_a_key_in_a_preset_is_refused_and_copied_nowhere(where, wire, tmp_path):
    presets, work = tmp_path / "presets" / "experiment", tmp_path / "work"
    presets.mkdir(parents=True)
    work.mkdir()
    text = "# @package _global_\n" + PRESETS[where].replace("{key}", KEY)
    (presets / "mine.yaml").write_text(text)
    words = (f"--config-dir={presets.parent}", "observer=checker+claude", "experiment=mine", "trace.file=missing.jsonl")
    done = m3i(work, wire, *words, f"store.root={work}/store", f"hydra.run.dir={work}/run")
    assert done.code == 2
    assert nothing_found(work, done)
    assert wire.requests == []


# -- whole runs -----------------------------------------------------------------------------------

PANEL = (*SMALL, "observer=checker+claude", "judge=verifier+gemini", "hydra.verbose=true")


@pytest.fixture(scope="module")
def finished(small_run, tmp_path_factory):
    """A folder with a finished run, of which many calls failed first, and the command's output.

    The stages before the first call are those of the small run, which had the same keys in its environment.
    """
    folder = tmp_path_factory.mktemp("secrets")
    shutil.copytree(small_run.store, folder / "store")
    with WireServer(key=KEY) as server:
        server.script(faults.echoing(500), faults.echoing(429), faults.closed(), faults.echoing(503))
        words = (*PANEL, f"store.root={folder}/store", f"hydra.run.dir={folder}/run")
        return folder, m3i(folder, server, *words)


@pytest.fixture
def started(finished, tmp_path):
    """A copy of its store, in a folder of its own, for other runs."""
    folder = tmp_path / "again"
    shutil.copytree(finished[0] / "store", folder / "store")
    return folder


def test_a_run_without_a_provider_leaves_no_secret(small_run):
    assert count_secrets(SECRETS, [small_run.store, small_run.folder], [small_run.printed]) == 0


@pytest.mark.slow
def test_a_whole_run_with_failing_calls_leaves_no_secret(finished):
    folder, done = finished
    assert done.code == 0, done.err
    assert nothing_found(folder, done)
    written = {p.name for p in folder.rglob("*") if p.is_file()}
    assert {"result.json", "report.html", "ledger.sqlite", "config.yaml", "overrides.yaml"} <= written
    assert "500" in (folder / "run" / "result.json").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [[faults.ok(), faults.revoked()], [faults.ok(), faults.echoing(403)], [faults.ok(), *[faults.echoing(500)] * 40]],
    ids=["revoked", "forbidden", "outage"],
)
def test_a_run_that_fails_leaves_no_secret_and_goes_on_when_started_again(script, started):
    words = (*PANEL, "observer.claude.replicate=1", f"store.root={started}/store", f"hydra.run.dir={started}/run")
    with WireServer(key=KEY) as server:
        server.script(*script)
        done = m3i(started, server, *words, "ledger.deadline_s=3")
        assert done.code == 2
        assert "Traceback" not in done.err
        assert nothing_found(started, done)
    with WireServer(key=KEY) as server:
        done = m3i(started, server, *words)
        assert done.code == 0, done.err
        assert server.repeated == 0
        assert nothing_found(started, done)


@pytest.mark.slow
def test_what_is_exported_holds_no_secret(finished, started, wire):
    file = started / "recording.jsonl"
    done = m3i(started, wire, "ledger", "export", str(file), "--path", str(started / "store" / "ledger.sqlite"))
    assert done.code == 0, done.err
    assert file.stat().st_size > 0
    assert nothing_found(started, done)
    done = m3i(started, wire, "ledger", "show", "--path", str(started / "store" / "ledger.sqlite"))
    assert done.code == 0
    assert nothing_found(started, done)
    assert Path(finished[0] / "run" / "report.html").stat().st_size > 0
