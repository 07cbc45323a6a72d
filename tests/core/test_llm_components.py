"""Observers and judges that ask a model: from traces and pairs to audits and ballots, through the real ledger."""

import asyncio
import hashlib
import json
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest
from llm_scripted import (
    PROBLEM,
    Scripted,
    ScriptedBatchProvider,
    ScriptedJudge,
    ScriptedObserver,
    ScriptedProvider,
    answer_of,
    finding,
    findings,
    reply,
    trace_of,
    verdict,
    with_provider,
)
from test_llm_digest import telemetry_of

from m3i.artifacts import CallFacts, Problem
from m3i.component import field_docs, resolved_fields
from m3i.config.settings import LedgerSettings
from m3i.errors import ConfigError, InputError, StageError
from m3i.interfaces import AuditRequest, BlindPair, Judge, JudgeRequest, Observer
from m3i.ledger import Ledger
from m3i.ledger.request import Stop, TooLong
from m3i.llm.judge import LLMJudge
from m3i.llm.observer import ALL_DROPPED, LLMObserver
from m3i.llm.panel import Asked, CallMode, ReplyError
from m3i.llm.verdict import Opinion, ballot_of

PROMPTS = Path(__file__).parents[2] / "m3i" / "llm" / "prompts"
OTHER = Problem(id="q", prompt="1+1=?", answer="2")
TRACES = [trace_of("7*6=43\n48+43=91", "p.0"), trace_of("1+1=2", "q.0", "q"), trace_of("7*6=42", "p.1")]
ITEMS = [(PROBLEM, TRACES[0]), (OTHER, TRACES[1]), (PROBLEM, TRACES[2])]


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(LedgerSettings(budget_usd=None, batch_poll_s=0.01), default_path=tmp_path / "ledger.sqlite")
    yield made
    made.close()


def user_text(request):
    return request.messages[0].text


def audit_with(observer, ledger, items=ITEMS, telemetry=None):
    telemetry = telemetry or telemetry_of(trace_of("x", "none"))
    request = AuditRequest(items=items, source=None, telemetry=telemetry, target=None, ledger=ledger)
    return asyncio.run(observer.audit(request))


# -- observer ---------------------------------------------------------------------------------


def test_an_audit_has_findings_counts_and_facts(ledger):
    right, wrong = findings(), findings(finding("7*6=43", correction="7*6=42"), finding("7*6=44"), finding("4", step=2))
    provider = ScriptedProvider(
        lambda r: reply(wrong if "1| 7*6=43" in user_text(r) else right if "1+1=?" in user_text(r) else "no failure")
    )
    audit = audit_with(with_provider(ScriptedObserver, provider), ledger)
    assert [(f.trace_id, f.quote, f.correction, f.step) for f in audit.findings] == [("p.0", "7*6=43", "7*6=42", 1)]
    assert audit.audited == ("p.0", "q.0")
    assert list(audit.missing) == ["p.1"]
    assert audit.missing["p.1"].startswith(
        "no valid reply after one repair turn: the reply is not one bare JSON object"
    )
    assert (audit.rejected_quotes, audit.ambiguous_quotes) == (1, 1)
    calls = audit.calls
    assert (calls.provider, calls.model, calls.prompt) == ("scripted", "scripted-1", "m3i audit 1")
    assert calls.prompt_sha256 == hashlib.sha256((PROMPTS / "audit.md").read_bytes()).hexdigest()
    assert (calls.n_calls, calls.n_repairs, calls.n_invalid, calls.answered_by) == (4, 1, 1, {"scripted-1-2026": 4})
    assert (calls.cost_usd, calls.n_unpriced) == (0.0, 4)
    assert audit.notes == ("reference answer shown",)
    assert provider.closed == 1


def test_a_trace_whose_findings_were_all_dropped_is_missing(ledger):
    script = lambda r: reply(findings(finding("not there")) if "7*6=43" in user_text(r) else findings())  # noqa: E731
    audit = audit_with(with_provider(ScriptedObserver, ScriptedProvider(script)), ledger)
    assert audit.missing == {"p.0": ALL_DROPPED}
    assert audit.audited == ("q.0", "p.1")
    assert audit.rejected_quotes == 1


def test_refused_truncated_and_too_long_are_missing_never_free_of_failures(ledger):
    outcomes = iter([reply("", Stop.REFUSAL), reply(findings(), Stop.MAX_TOKENS), TooLong("long"), reply(findings())])
    items = [(PROBLEM, trace_of(str(i), f"p.{i}")) for i in range(4)]
    audit = audit_with(with_provider(ScriptedObserver, ScriptedProvider(lambda r: next(outcomes))), ledger, items)
    assert len(audit.missing) == 3
    assert len(audit.audited) == 1
    with pytest.raises(StageError, match="observe scripted-1: none of 3 items got a valid reply"):
        audit_with(with_provider(ScriptedObserver, ScriptedProvider(lambda r: reply("x"))), ledger)


def test_telemetry_is_shown_where_it_was_measured_and_only_there_layers_are_asked_for(ledger):
    def script(request):
        layered = "layers" in json.dumps(request.schema)
        assert ("lens rank" in user_text(request)) == layered
        item = finding("7*6=43", layers=[2, 1]) if layered else finding("7*6=42")
        return reply(findings(item) if "1+1=?" not in user_text(request) else findings())

    observer = with_provider(ScriptedObserver, ScriptedProvider(script), show_telemetry=True)
    audit = audit_with(observer, ledger, telemetry=telemetry_of(TRACES[0]))
    assert {f.trace_id: f.layers for f in audit.findings} == {"p.0": (1, 2), "p.1": ()}
    assert "telemetry shown for 1 of 3 traces, the others were not measured" in audit.notes
    blind = with_provider(ScriptedObserver, ScriptedProvider(lambda r: reply(findings())))
    audit_with(blind, ledger, telemetry=telemetry_of(TRACES[0]))
    assert not any("lens rank" in user_text(r) for r in blind.client.asked)


def test_the_reference_can_be_withheld_and_traces_of_a_problem_follow_each_other(ledger):
    provider = ScriptedProvider(lambda r: reply(findings()))
    audit = audit_with(with_provider(ScriptedObserver, provider, show_reference=False), ledger)
    assert not any("REFERENCE" in user_text(r) for r in provider.asked)
    assert "reference answer withheld" in audit.notes[0]
    observer = with_provider(ScriptedObserver, provider)
    request = AuditRequest(items=ITEMS, source=None, telemetry=None, target=None, ledger=ledger)
    asks = observer.asks(request)
    assert [a.id for a in asks] == ["p.0", "p.1", "q.0"]
    assert asks[0].request == observer.request_for(*ITEMS[0])
    assert "REFERENCE\n75\n" in user_text(asks[0].request)


def test_replicates_are_different_questions():
    one, other = (with_provider(ScriptedObserver, None, replicate=i).request_for(*ITEMS[0]) for i in (0, 1))
    assert one.key != other.key
    assert one.messages == other.messages


# -- judge ------------------------------------------------------------------------------------

PAIRS = [
    BlindPair(key="k0", problem=PROBLEM, a=answer_of("right 75"), b=answer_of("wrong 76")),
    BlindPair(key="k1", problem=OTHER, a=answer_of("2", "q"), b=answer_of("3", "q")),
    BlindPair(key="k2", problem=PROBLEM, a=answer_of("wrong 76"), b=answer_of("right 75")),
]


def judge_with(judge, ledger, pairs=PAIRS):
    return asyncio.run(judge.judge(JudgeRequest(pairs=pairs, source=None, ledger=ledger)))


def fair(request):
    a = user_text(request).split(" ANSWER A\n")[1]
    return reply(verdict("A" if a.startswith(("right", "2")) else "B", reason="75 is\nright"))


def test_ballots_come_in_the_order_of_the_pairs(ledger):
    provider = ScriptedProvider(fair)
    judgment = judge_with(with_provider(ScriptedJudge, provider), ledger)
    assert [(b.key, b.choice, b.reason, b.replicates) for b in judgment.ballots] == [
        ("k0", "a", "75 is right", ()), ("k1", "a", "75 is right", ()), ("k2", "b", "75 is right", ()),
    ]  # fmt: skip
    assert judgment.calls.prompt == "m3i judge 1"
    assert judgment.calls.n_calls == 3
    assert list(provider.asked[0].schema["properties"]) == ["reason", "choice"]


def test_the_judge_is_shown_no_length_key_or_order(ledger):
    provider = ScriptedProvider(fair)
    judge = with_provider(ScriptedJudge, provider)
    judge_with(judge, ledger)
    request = JudgeRequest(pairs=PAIRS, source=None, ledger=ledger)
    assert [a.id for a in judge.asks(request)] == ["k0", "k2", "k1"]
    one, two = (judge.request_for(PAIRS[i]) for i in (0, 2))
    assert one.system == two.system
    assert one.messages[0].blocks[0] == two.messages[0].blocks[0]
    for request in provider.asked:
        data = re.findall(r"^==\w+== (?:PROBLEM|ANSWER [AB])\n(.*)$", user_text(request), re.MULTILINE)
        assert len(data) == 3
        rest = re.sub(r"==[0-9a-f]{8}==", "", user_text(request))
        for text in sorted(data, key=len, reverse=True):
            rest = rest.replace(text, "")
        assert not re.search(r"\d|k0|k1|k2|base|tuned", rest)


@pytest.mark.parametrize(
    ("choices", "ballot"),
    [
        ("A", "a"), ("t", "tie"), ("AAB", "a"), ("ABB", "b"), ("ABt", "tie"), ("AABB", "tie"), ("Att", "tie"),
        ("A?A", "a"), ("A??", "missing"), ("AB?", "tie"), ("?", "missing"), ("A?", "missing"),
    ],
)  # fmt: skip
def test_the_majority_of_the_replicates_is_the_ballot(choices, ballot):
    words = {"A": "a", "B": "b", "t": "tie"}
    opinions = [Opinion(choice=words[c], reason=f"for {c}") if c in words else "refused" for c in choices]
    made = ballot_of("k", opinions)
    assert made.choice == ballot
    assert made.replicates == (tuple(words.get(c, "missing") for c in choices) if len(choices) > 1 else ())
    known = {words.get(c): f"for {c}" for c in choices}
    assert made.reason == ("refused" if ballot == "missing" else known.get(ballot, "the replicates disagree"))


def test_replicates_are_asked_apart_and_counted(ledger):
    choices = iter("ABBBBBBBB")
    provider = ScriptedProvider(lambda r: reply(verdict(next(choices))))
    judgment = judge_with(with_provider(ScriptedJudge, provider, replicates=3), ledger)
    assert [b.choice for b in judgment.ballots] == ["b", "b", "b"]
    assert sorted(judgment.ballots[0].replicates) == ["a", "b", "b"]
    assert sorted(r.replicate for r in provider.asked) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({r.key for r in provider.asked}) == judgment.calls.n_calls == 9


def test_a_pair_without_a_valid_reply_is_a_missing_ballot(ledger):
    script = lambda r: fair(r) if "1+1" in user_text(r) else reply('{"choice": "C", "reason": ""}')  # noqa: E731
    judgment = judge_with(with_provider(ScriptedJudge, ScriptedProvider(script)), ledger)
    assert [b.choice for b in judgment.ballots] == ["missing", "a", "missing"]
    assert "choice: Input should be 'A', 'B' or 'tie'" in judgment.ballots[0].reason
    assert judgment.calls.n_invalid == 2


def test_batches(ledger):
    provider = ScriptedBatchProvider(fair)
    judge = with_provider(ScriptedJudge, provider, mode=CallMode.batch)
    assert [b.choice for b in judge_with(judge, ledger).ballots] == ["a", "a", "b"]
    assert len(provider.batches) == 1


# -- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [ScriptedObserver, ScriptedJudge])
def test_options_are_documented_and_the_prompts_hash_is_resolved(cls):
    made = cls()
    assert isinstance(made, Observer if cls is ScriptedObserver else Judge)
    assert made.reads_with_model
    assert made.uses_ledger
    assert set(field_docs(cls)) >= {f.name for f in fields(cls)}
    resolved = resolved_fields(made)
    builtin = PROMPTS / cls.builtin_prompt
    assert resolved["prompt_sha256"] == hashlib.sha256(builtin.read_bytes()).hexdigest()
    assert "mode" not in resolved
    assert made.family() == "scripted-1"
    assert cls(model="openrouter/anthropic/claude-x").family() == "claude"


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (ScriptedObserver, {"max_tokens": 10}, r"observer\.max_tokens = 10"),
        (ScriptedObserver, {"temperature": 3.0}, r"observer\.temperature = 3\.0"),
        (ScriptedObserver, {"replicate": -1}, r"observer\.replicate = -1"),
        (ScriptedObserver, {"model": " "}, r"observer\.model = ' '"),
        (ScriptedObserver, {"prompt_sha256": "00"}, r"observer\.prompt_sha256 = '00', but the built-in audit\.md has"),
        (ScriptedJudge, {"replicates": 0}, r"judge\.replicates = 0"),
        (ScriptedJudge, {"prompt_file": "/no/such.md"}, r"judge\.prompt_file = '/no/such\.md': cannot be read"),
    ],
)
def test_bad_options_name_themselves(cls, options, message):
    with pytest.raises((ConfigError, InputError), match=message):
        cls(**options)


def test_a_prompt_file_replaces_the_builtin_one_and_enters_key_and_request(tmp_path):
    path = tmp_path / "mine.md"
    builtin = (PROMPTS / "judge.md").read_text()
    path.write_text(builtin.replace("m3i judge 1", "strict 7").replace("You compare", "You strictly compare"))
    judge = ScriptedJudge(prompt_file=str(path))
    assert judge.prompt_sha256 == hashlib.sha256(path.read_bytes()).hexdigest() != ScriptedJudge().prompt_sha256
    request = judge.request_for(PAIRS[0])
    assert request.system[0].text.startswith("You strictly compare")
    assert judge.facts() == CallFacts(
        provider="scripted", model="scripted-1", family="scripted-1", prompt="strict 7",
        prompt_sha256=judge.prompt_sha256,
    )  # fmt: skip
    assert ScriptedJudge(prompt_file=str(path), prompt_sha256=judge.prompt_sha256.upper()).prompt_sha256
    path.write_text(builtin)
    with pytest.raises(ConfigError, match=r"judge\.prompt_file = .*edited during the run"):
        judge.request_for(PAIRS[0])


def test_options_enter_the_request():
    observer = with_provider(ScriptedObserver, None, max_tokens=99, temperature=0.5, model="m", replicate=2)
    request = observer.request_for(*ITEMS[0])
    assert (request.provider, request.model, request.max_tokens) == ("scripted", "m", 99)
    assert (request.temperature, request.replicate, request.options) == (0.5, 2, {})


# -- remote -----------------------------------------------------------------------------------


def test_without_a_key_it_says_which_variable_and_what_works_without():
    with pytest.raises(ConfigError) as caught:
        ScriptedObserver().require_key({"SCRIPTED_API_KEY": "  "})
    message = str(caught.value)
    for part in ("SCRIPTED_API_KEY or OTHER_API_KEY", "environment", "never from a config", "observer=checker",
                 "observer=surprisal", "observer=llamacpp", "ledger.mode=replay", "m3i cost"):  # fmt: skip
        assert part in message
    with pytest.raises(ConfigError, match="judge=verifier"):
        ScriptedJudge().require_key({})
    ScriptedObserver().require_key({"OTHER_API_KEY": "k"})


def test_the_key_is_looked_for_in_the_environment(monkeypatch):
    for name in ScriptedObserver.key_variables:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="needs a key for scripted"):
        ScriptedObserver().require_key()
    monkeypatch.setitem(os.environ, "OTHER_API_KEY", "k")
    ScriptedObserver().require_key()


def test_a_provider_without_batches_refuses_them():
    @dataclass(kw_only=True)
    class Plain(ScriptedJudge):
        """No batches."""

        has_batches: ClassVar[bool] = False

    assert ScriptedJudge(mode="batch").mode is CallMode.batch
    with pytest.raises(ConfigError, match=r"judge\.mode = 'batch': expected each: scripted has no batch API"):
        Plain(mode=CallMode.batch)


def test_the_client_is_closed_after_a_failure(ledger):
    provider = ScriptedProvider(lambda r: reply("x"))
    with pytest.raises(StageError):
        judge_with(with_provider(ScriptedJudge, provider), ledger)
    assert provider.closed == 1


# -- the seam ---------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [LLMObserver, LLMJudge])
def test_a_component_says_how_text_is_obtained(base):
    @dataclass(kw_only=True)
    class Silent(base):
        """Does not."""

    with pytest.raises(TypeError, match="answers"):
        Silent(model="m")
    assert not issubclass(base, Scripted)


def test_a_model_of_its_own_uses_prompt_schema_and_reader_and_no_ledger():
    """The seam as a local plugin uses it: text from the prompt's parts, one try, counts of its own."""
    seen = []

    @dataclass(kw_only=True)
    class Local(LLMJudge):
        """Chooses the longer problem text."""

        choice_first: ClassVar[bool] = True

        async def answers(self, asks, *, ledger, purpose, tick):
            values, missing = {}, {}
            for done, ask in enumerate(asks, start=1):
                seen.append([p.text for p in ask.prompt.parts if p.is_data])
                assert list(ask.request.schema["properties"]) == ["choice", "reason"]
                try:
                    values[ask.id] = ask.read(verdict("B") if "q" not in ask.id else "")
                except ReplyError as error:
                    missing[ask.id] = str(error)
                tick(done, len(asks))
            return Asked(values=values, missing=missing, facts=self.facts())

    judge = Local(model="mine")
    assert not judge.uses_ledger
    judgment = judge_with(judge, None)
    assert [b.choice for b in judgment.ballots] == ["b", "b", "b"]
    assert seen[0] == ["48+7*6-15=?", "right 75", "wrong 76"]
    assert judgment.calls.provider == "local"
