"""The examples of docs/observer.md work as they stand."""

import asyncio
import importlib
import re
import sys
from pathlib import Path

import pytest
from llm_scripted import PROBLEM, trace_of
from test_llm_digest import telemetry_of

from m3i.audits.quotes import checked_audit
from m3i.config.registry import build
from m3i.errors import ConfigError
from m3i.interfaces import AuditRequest
from m3i.ledger import OutageError
from m3i.ledger.request import AccountError, RequestError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "observer.md").read_text(encoding="utf-8")
TRACES = [trace_of("7*6=43\n48+43=91\nanswer 91", "p.0"), trace_of("7*6=42\n48+42=90\n90-15=75\nanswer 75", "p.1")]


@pytest.fixture
def wire(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("tests.wire")


@pytest.fixture
def example(tmp_path, monkeypatch):
    source = re.search(r"```python example\n(.+?)```", PAGE, re.S).group(1)
    (tmp_path / "m3i_house.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("m3i_house")
    del sys.modules["m3i_house"]


@pytest.fixture
def ledger_of(open_ledger):
    prices = {"house-70b": {"input": 1, "output": 1}}
    return lambda **options: open_ledger(**{"prices": prices, "deadline_s": 60.0} | options)


@pytest.fixture
def ledger(ledger_of):
    return ledger_of()


def audit_with(observer, ledger):
    items = [(PROBLEM, trace) for trace in TRACES]
    telemetry = telemetry_of(trace_of("x", "none"))
    request = AuditRequest(items=items, source=None, telemetry=telemetry, target=None, ledger=ledger)
    return checked_audit(asyncio.run(observer.audit(request)), "house", TRACES, n_layers=4)


def test_the_example_finds_what_is_wrong(example, ledger, wire, monkeypatch):
    cls = build([(example, "m3i-house", "1.0")]).find("observer", "house").cls
    with wire.WireServer(mind="honest", models=("house-*",)) as server:
        monkeypatch.setenv("HOUSE_API_KEY", server.key)
        audit = audit_with(cls(url=server.openai_url), ledger)
        assert [(f.trace_id, f.quote, f.step) for f in audit.findings] == [("p.0", "7*6=43", 1)]
        assert (audit.audited, audit.missing, audit.rejected_quotes) == (("p.0", "p.1"), {}, 0)
        assert (audit.calls.n_calls, audit.calls.n_unpriced) == (2, 0)
        assert audit.calls.cost_usd > 0
        assert audit_with(cls(url=server.openai_url), ledger) == audit
        assert len(server.requests) == 2
        assert not any(seen.invalid for seen in server.requests)


def test_the_example_tells_failures_apart(example, ledger, ledger_of, wire, monkeypatch):
    monkeypatch.delenv("HOUSE_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="HOUSE_API_KEY"):
        example.House().require_key()
    with wire.WireServer(models=("house-*",)) as server:
        monkeypatch.setenv("HOUSE_API_KEY", "wrong-key-0123456789")
        with pytest.raises(AccountError, match="401"):
            audit_with(example.House(url=server.openai_url), ledger)
        monkeypatch.setenv("HOUSE_API_KEY", server.key)
        with pytest.raises(RequestError, match="404"):
            audit_with(example.House(url=server.openai_url, model="other"), ledger_of(budget_usd=None))
        address = server.openai_url
    with pytest.raises(OutageError):
        audit_with(example.House(url=address), ledger_of(deadline_s=0.2))


def test_an_invalid_reply_gets_its_repair_turn_through_the_example(example, ledger, wire, monkeypatch):
    with wire.WireServer(mind="invalid_once", models=("house-*",)) as server:
        monkeypatch.setenv("HOUSE_API_KEY", server.key)
        audit = audit_with(example.House(url=server.openai_url), ledger)
        assert audit.calls.n_repairs == 2
        assert audit.audited == ("p.0", "p.1")


def test_a_model_that_invents_quotes_is_counted_through_the_example(example, ledger, wire, monkeypatch):
    with wire.WireServer(mind="hallucinating", models=("house-*",)) as server:
        monkeypatch.setenv("HOUSE_API_KEY", server.key)
        audit = audit_with(example.House(url=server.openai_url), ledger)
        assert audit.rejected_quotes > 0
        assert audit.findings == ()
        assert set(audit.missing) == {"p.0", "p.1"}


def test_the_example_is_short(example):
    source = re.search(r"```python example\n(.+?)```", PAGE, re.S).group(1)
    lines = [line for line in source.split("class Client")[1].splitlines() if line.strip()]
    assert len(lines) <= 60
    observer = source.split("@dataclass(kw_only=True)")[1].strip().splitlines()
    assert len(observer) <= 30


def test_the_model_in_this_process_says_what_its_text_says():
    code = next(c for c in re.findall(r"```python\n(.+?)```", PAGE, re.S) if "class InProcess" in c)
    names = {"__name__": "in_process"}
    exec(compile(code, "docs/observer.md", "exec"), names)
    audit = audit_with(names["InProcess"](model="mine"), None)
    assert audit.audited == ("p.0", "p.1")
    names["generate"] = lambda prompt, schema: "no failure"
    assert set(audit_with(names["InProcess"](model="mine"), None).missing) == {"p.0", "p.1"}
