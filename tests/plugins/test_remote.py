"""Observers and judges of the providers, whole: prompt, ledger, SDK, wire, reply, findings and ballots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from m3i_arithmetic.expressions import parse_expression
from m3i_arithmetic.source import ArithmeticProblems, as_problem
from m3i_claude.judge import ClaudeJudge
from m3i_claude.observer import Claude
from m3i_gemini.judge import GeminiJudge
from m3i_gemini.observer import Gemini
from m3i_litellm.client import sdk
from m3i_litellm.judge import LiteLLMJudge
from m3i_litellm.observer import LiteLLM

from m3i.artifacts import Answer, Audit, Telemetry, Trace
from m3i.config.settings import LedgerMode, LedgerSettings
from m3i.errors import M3IError
from m3i.interfaces import AuditRequest, BlindPair, JudgeRequest, Judgment
from m3i.ledger import Ledger, ReplayError
from m3i.llm.panel import CallMode
from tests.wire import WireServer, faults


def with_litellm(component: Callable[..., Any]) -> Callable[..., Any]:
    """Of a model of OpenAI; litellm's import, which takes seconds, is over before the ledger counts a call's time."""

    def make(**options: Any) -> Any:
        sdk()
        return component(model="openai/gpt-5", **options)

    return make


OBSERVERS: dict[str, Callable[..., Any]] = {
    "claude": Claude,
    "gemini": Gemini,
    "litellm": with_litellm(LiteLLM),
}
JUDGES: dict[str, Callable[..., Any]] = {
    "claude": ClaudeJudge,
    "gemini": GeminiJudge,
    "litellm": with_litellm(LiteLLMJudge),
}
WAYS = [(name, mode) for name in OBSERVERS for mode in CallMode if mode is CallMode.each or name != "litellm"]
PROBLEMS = [as_problem(parse_expression(f"{a}+7*6-15=?")) for a in (48, 49, 50)]
TEXTS = ["7*6=42\n48+42=90\n90-15=75\n75", "7*6=43\n49+43=92\n92-15=77\n77", "7*6=42\n50+42=93\n93-15=78\n78"]
NOTHING = np.zeros((2, 0))
TELEMETRY = Telemetry(
    trace_ids=(),
    starts=(0,),
    moe_layers=(),
    lens_rank_LS=NOTHING,
    lens_entropy_LS=NOTHING,
    update_norm_LS=NOTHING,
    attention_entropy_LS=NOTHING,
    router_entropy_RS=NOTHING,
    expert_load_RE=NOTHING,
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    with WireServer() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
        monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
        yield server


def trace(i: int) -> Trace:
    """One token a character."""
    text = TEXTS[i]
    return Trace(
        id=f"t{i}",
        problem_id=PROBLEMS[i].id,
        sample=0,
        prompt_ids=(1,),
        completion_ids=tuple(map(ord, text)),
        text=text,
        offsets=tuple((k, k + 1) for k in range(len(text))),
        logprobs=(-0.01,) * len(text),
        correct=i == 0,
        answer=None,
        truncated=False,
    )


def answer(i: int) -> Answer:
    text = TEXTS[i]
    return Answer(
        problem_id=PROBLEMS[0].id, text=text, seed=0, completion_ids=(1,), correct=i == 0, answer=None, truncated=False
    )


def ledger(folder: Path, **settings: Any) -> Ledger:
    settings = {"batch_poll_s": 0.05, **settings}
    return Ledger(LedgerSettings(**settings), default_path=folder / "ledger.sqlite")


def audit(observer: Any, folder: Path, **settings: Any) -> Audit:
    book = ledger(folder, **settings)
    items = [(problem, trace(i)) for i, problem in enumerate(PROBLEMS)]
    request = AuditRequest(
        items=items,
        source=ArithmeticProblems(),
        telemetry=TELEMETRY,
        target=None,
        ledger=book,  # type: ignore[arg-type]
    )
    try:
        return asyncio.run(observer.audit(request))  # type: ignore[no-any-return]
    finally:
        book.close()


def judge(component: Any, folder: Path) -> Judgment:
    book = ledger(folder)
    right, wrong = answer(0), answer(1)
    pairs = [
        BlindPair(key="0/ab", problem=PROBLEMS[0], a=right, b=wrong),
        BlindPair(key="0/ba", problem=PROBLEMS[0], a=wrong, b=right),
        BlindPair(key="1/ab", problem=PROBLEMS[0], a=right, b=right),
    ]
    try:
        request = JudgeRequest(pairs=pairs, source=ArithmeticProblems(), ledger=book)
        return asyncio.run(component.judge(request))  # type: ignore[no-any-return]
    finally:
        book.close()


@pytest.mark.parametrize(("name", "mode"), WAYS)
def test_an_audit(server: WireServer, tmp_path: Path, name: str, mode: CallMode):
    observer = OBSERVERS[name](mode=mode)
    result = audit(observer, tmp_path)
    assert [(f.trace_id, f.quote, f.correction) for f in result.findings] == [
        ("t1", "7*6=43", "7*6=42"),
        ("t2", "50+42=93", "50+42=92"),
    ]
    assert (result.audited, dict(result.missing)) == (("t0", "t1", "t2"), {})
    assert result.calls is not None
    assert (result.calls.n_calls, result.calls.n_invalid) == (3, 0)
    assert result.calls.cache_read_tokens > 0
    assert result.calls.cost_usd > 0
    assert not server.invalid
    assert server.repeated == 0
    again = audit(observer, tmp_path, mode=LedgerMode.replay)
    assert again.findings == result.findings
    assert sum(server.paid.values()) == 3


@pytest.mark.parametrize(("name", "mode"), WAYS)
def test_a_judgment(server: WireServer, tmp_path: Path, name: str, mode: CallMode):
    result = judge(JUDGES[name](mode=mode), tmp_path)
    assert {ballot.key: ballot.choice for ballot in result.ballots} == {"0/ab": "a", "0/ba": "b", "1/ab": "tie"}
    assert not server.invalid
    assert server.repeated == 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "claude" else pytest.mark.slow) for name in OBSERVERS]
)
def test_faults_cost_no_sample_and_no_second_payment(server: WireServer, tmp_path: Path, name: str):
    server.script(
        faults.rate_limited(0.01),
        faults.ok(),
        faults.server_error(),
        faults.overloaded(),
        faults.closed(),
        faults.truncated(),
        faults.malformed(),
        faults.hold(),
    )
    result = audit(OBSERVERS[name](), tmp_path, timeout_s=5.0)
    server.release()
    assert result.audited == ("t0", "t1", "t2")
    assert len(result.findings) == 2
    assert server.repeated == 0


@pytest.mark.parametrize("name", OBSERVERS)
def test_an_invalid_reply_gets_one_repair_turn(server: WireServer, tmp_path: Path, name: str):
    server.mind = "invalid_once"
    result = audit(OBSERVERS[name](), tmp_path)
    assert len(result.findings) == 2
    assert result.calls is not None
    assert (result.calls.n_calls, result.calls.n_repairs) == (6, 3)


@pytest.mark.parametrize("mind", ["invalid_always", "refusing", "truncating", "empty", "hallucinating"])
@pytest.mark.parametrize("name", OBSERVERS)
def test_what_is_no_audit_is_missing_and_never_a_clean_bill(server: WireServer, tmp_path: Path, name: str, mind: str):
    server.script(faults.by("honest"))
    server.mind = mind
    result = audit(OBSERVERS[name](), tmp_path)
    assert result.audited == ("t0",)
    assert set(result.missing) == {"t1", "t2"}


@pytest.mark.parametrize("name", OBSERVERS)
def test_a_replay_without_a_recording_asks_nobody(server: WireServer, tmp_path: Path, name: str):
    with pytest.raises(ReplayError):
        audit(OBSERVERS[name](), tmp_path, mode=LedgerMode.replay)
    assert not server.requests


@pytest.mark.parametrize("name", OBSERVERS)
def test_no_key_reaches_the_disk(server: WireServer, tmp_path: Path, name: str):
    server.script(faults.ok(), faults.echoing(), faults.echoing(503))
    audit(OBSERVERS[name](), tmp_path)
    server.script(faults.echoing(401))
    with pytest.raises(M3IError) as caught:
        audit(OBSERVERS[name](replicate=1), tmp_path)
    assert server.key not in str(caught.value)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if server.key.encode() in file.read_bytes()]
