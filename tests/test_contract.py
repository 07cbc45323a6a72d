"""Every registered component, ours and third-party, under the contract of `m3i.contract`.

Add a component or an option and this file says what is missing: a value that must be refused, a second
valid value, or the remark that any value of its type is fine.
"""

import dataclasses
import importlib
import sys
import types
import typing
from pathlib import Path

import pytest
from m3i_claude.options import Effort, Thinking
from m3i_gemini.options import ThinkingLevel

import m3i
from m3i.component import field_docs
from m3i.config import settings
from m3i.config.experiment import Experiment
from m3i.config.registry import build
from m3i.contract import Case, checks
from m3i.contract.kind_checks import PROBE
from m3i.errors import ConfigError

TESTS = Path(__file__).parent
PLUGINS = TESTS.parent / "plugins"
ACME = TESTS / "third_party" / "acme_m3i"
INFO = PROBE

DATA = TESTS / "data"
COUNT = [0, -1]
PLACE = {"device": [""], "dtype": ["float8", ""]}
PLACE_OTHER = {"device": "cpu:0", "dtype": "bfloat16"}
CHAT_OTHER = {
    **PLACE_OTHER,
    "chat": False,
    "system_prompt": "Be brief.",
    "examples": [{"prompt": "1+1", "completion": "2"}],
    "family": "llama",
}
CHAT_BAD = {**PLACE, "examples": [[{"prompt": "x"}], [{"question": "x", "completion": "y"}]]}
REVISION = "0123456789abcdef0123456789abcdef01234567"
REPLACING = {"component": ["head"], "batch_size": COUNT}
REPLACING_OTHER = {"component": "mlp"}
ABLATING = {**REPLACING, "baseline": ["median"], "positions": ["first"], "baseline_traces": COUNT, "min_count": COUNT}
ABLATING_OTHER = {"baseline": "zero", "positions": "all", **REPLACING_OTHER}
POOL = {"candidates": ["some", [], [1, 1], [-1], [0.5]]}
EXPORTING = {
    "max_parity": [-0.1],
    "max_relative_error": [0.0, 1.0],
    "n_probes": COUNT,
    "n_threads": COUNT,
}
SCORED = {**POOL, "k": COUNT}
SCORED_OTHER = {"candidates": "all", "attributor": "votes"}

PROMPTS = Path(m3i.__file__).parent / "llm" / "prompts"
READING = {"prompt_file": ["/nowhere/prompt.md"], "prompt_sha256": ["00"], "max_tokens": [63]}
REMOTE = {**READING, "model": [""], "temperature": [-0.1, 2.1]}
OBSERVING, JUDGING = {"replicate": [-1]}, {"replicates": [0, 100]}
CLAUDE = {**REMOTE, "temperature": [-0.1, 0.5], "thinking_budget": [1023, 8192]}
CLAUDE_OTHER = {
    "model": "claude-opus-5-5",
    "effort": Effort.low,
    "thinking": Thinking.disabled,
    "thinking_budget": 2048,
}
GEMINI = {**REMOTE, "thinking_budget": [-2, 8192]}
GEMINI_OTHER = {
    "model": "gemini-2.5-flash",
    "temperature": 0.5,
    "thinking_budget": 0,
    "thinking_level": ThinkingLevel.low,
}
LITELLM = {
    **REMOTE,
    "mode": ["batch"],
    "api_base": ["ftp://somewhere", "http://user:word@somewhere", "http://somewhere?key=word"],
    "reasoning_effort": ["", "a lot"],
}
LITELLM_NEEDS = {"model": "openai/gpt-5"}
LITELLM_OTHER = {
    "model": "mistral/mistral-large-latest",
    "temperature": 0.5,
    "api_base": "http://127.0.0.1:8000/v1",
    "reasoning_effort": "low",
}
LOCAL = {
    **READING,
    "max_tokens": [63, 4096],
    "n_ctx": [255],
    "max_reason_chars": [-1, 2001],
    "temperature": [-0.1, 2.1],
    "threads": COUNT,
}
LOCAL_OTHER = {"model": "/nowhere/model.gguf", "temperature": 0.5}
AUDIT, VERDICT = {"prompt_file": str(PROMPTS / "audit.md")}, {"prompt_file": str(PROMPTS / "judge.md")}

CASES = {
    "target/tiny": Case(bad=PLACE, other=PLACE_OTHER),
    "target/smollm2": Case(
        bad=CHAT_BAD, other={k: v for k, v in CHAT_OTHER.items() if k != "family"}, free="chat system_prompt"
    ),
    "target/hf": Case(
        needs={"path": "owner/name"},
        bad={**CHAT_BAD, "path": [""]},
        other={**CHAT_OTHER, "path": "owner/other", "revision": REVISION},
        free="chat system_prompt family revision",
    ),
    "target/deepseek-v2-lite": Case(
        bad={**CHAT_BAD, "path": [""]},
        other={**CHAT_OTHER, "path": "deepseek-ai/DeepSeek-V2-Lite", "revision": REVISION},
        free="chat system_prompt family revision",
    ),
    "problems/arithmetic": Case(
        bad={
            "n_train": COUNT,
            "n_held_out": COUNT,
            "operations_min": [0, 6],
            "operations_max": [2],
            "products_max": [-1],
            "largest_operand": [1],
            "largest_factor": [1],
            "largest_multiplicand": [1],
            "largest_value": [5],
        },
        free="seed",
    ),
    "problems/jsonl": Case(
        needs={"path": str(DATA / "problems.jsonl")},
        bad={
            "path": [""],
            "n_train": COUNT,
            "n_held_out": COUNT,
            "held_out_share": [0.0, 1.0],
            "compare": ["roughly"],
            "answer": ["first_word", "after:", "pattern:("],
            "sha256": ["00"],
        },
        other={
            "path": str(DATA / "held_out_problems.jsonl"),
            "held_out_path": str(DATA / "held_out_problems.jsonl"),
            "n_train": 3,
            "n_held_out": 2,
            "compare": "exact",
            "answer": "last_word",
        },
        derived="sha256",
        free="held_out_path seed",
        draws={},
    ),
    "problems/reasoning_gym": Case(
        bad={
            "task": ["", "gcd+", "gcd+gcd"],
            "n_train": COUNT,
            "n_held_out": COUNT,
            "min_score": [0.0, 1.5],
            "answer": ["first_word", "after:", "pattern:("],
        },
        other={
            "task": "gcd",
            "config": {"max_terms": 3},
            "prompt": "{question} Think.",
            "answer": "last_word",
            "exclude": ["1 + 1 ="],
        },
        free="config seed prompt exclude",
    ),
    "observer/checker": Case(),
    "observer/surprisal": Case(
        bad={
            "false_positive_rate": [0.0, -0.1, 0.6, 1.0],
            "statistic": ["word"],
            "quote": ["page"],
            "n_folds": [1, 0],
            "n_layers_named": [-1],
        },
        other={"statistic": "line", "quote": "token"},
    ),
    "observer/claude": Case(
        bad=CLAUDE | OBSERVING,
        other=CLAUDE_OTHER | AUDIT,
        fixed="temperature",
        derived="prompt_sha256",
        free="effort thinking",
    ),
    "observer/gemini": Case(
        bad=GEMINI | OBSERVING, other=GEMINI_OTHER | AUDIT, derived="prompt_sha256", free="thinking_level"
    ),
    "observer/litellm": Case(
        needs=LITELLM_NEEDS, bad=LITELLM | OBSERVING, other=LITELLM_OTHER | AUDIT, fixed="mode", derived="prompt_sha256"
    ),
    "observer/llamacpp": Case(
        bad=LOCAL | OBSERVING | {"max_findings": [0, 51], "max_quote_chars": [0, 2001]},
        other=LOCAL_OTHER | AUDIT,
        derived="prompt_sha256 model_sha256",
        free="model model_sha256 seed",
    ),
    "attributor/logit_lens": Case(bad=REPLACING, other=REPLACING_OTHER),
    "attributor/attribution_patching": Case(bad=ABLATING, other=ABLATING_OTHER),
    "attributor/ablation": Case(bad={**ABLATING, "strength": [0.0, 1.5, -1.0]}, other=ABLATING_OTHER),
    "attributor/votes": Case(),
    "selector/attribution": Case(bad=SCORED, other=SCORED_OTHER, free="attributor"),
    "selector/bottom": Case(bad=SCORED, other=SCORED_OTHER, free="attributor"),
    "selector/none": Case(bad=SCORED, other=SCORED_OTHER, free="attributor"),
    "selector/all": Case(bad=POOL, other={"candidates": "all"}),
    "selector/manual": Case(needs={"layers": [1, 2]}, bad={"layers": [[1, 1], [-1]]}, other={"layers": [3]}),
    "selector/random": Case(
        bad={**SCORED, "seed": [-1], "exclude": ["everything"]},
        other={**SCORED_OTHER, "exclude": "attributed"},
        free="attributor",
    ),
    "trainer/dpo_lora": Case(
        bad={
            "rank": COUNT,
            "alpha": COUNT,
            "modules": [[], ["qproj"]],
            "beta": [0.0, -0.1],
            "nll_weight": [-0.1],
            "learning_rate": [0.0, -1.0],
            "epochs": COUNT,
            "batch_size": COUNT,
            "max_grad_norm": [0.0, -1.0],
        },
        other={"modules": ["attention"]},
    ),
    "exporter/gguf_graft": Case(bad=EXPORTING),
    "exporter/gguf_adapter": Case(bad=EXPORTING),
    "judge/verifier": Case(),
    "tracker/mlflow": Case(
        bad={
            "tracking_uri": [
                "https://user:word@somewhere",
                "https://word@somewhere",
                "postgresql://user:wo/rd@somewhere/db",
                "https://somewhere?token=word",
                " http://somewhere",
            ],
            "experiment": ["", " ", "two\nlines", "x" * 501],
        },
        other={"tracking_uri": "http://127.0.0.1:5000", "experiment": "mine"},
    ),
    "judge/claude": Case(
        bad=CLAUDE | JUDGING,
        other=CLAUDE_OTHER | VERDICT,
        fixed="temperature",
        derived="prompt_sha256",
        free="effort thinking",
    ),
    "judge/gemini": Case(
        bad=GEMINI | JUDGING, other=GEMINI_OTHER | VERDICT, derived="prompt_sha256", free="thinking_level"
    ),
    "judge/litellm": Case(
        needs=LITELLM_NEEDS, bad=LITELLM | JUDGING, other=LITELLM_OTHER | VERDICT, fixed="mode", derived="prompt_sha256"
    ),
    "judge/llamacpp": Case(
        bad=LOCAL | JUDGING,
        other=LOCAL_OTHER | VERDICT,
        together={"replicates": {"temperature": 0.5}},
        derived="prompt_sha256 model_sha256",
        free="model model_sha256 seed",
    ),
}


def plugin_modules():
    """Our plugins from the checkout, and the third-party example, as the installed entry points would name them."""
    if str(ACME) not in sys.path:
        sys.path.append(str(ACME))
    names = sorted(p.parent.name for p in PLUGINS.glob("*/__init__.py"))
    return [
        *((importlib.import_module(n), "m3i", "0") for n in names),
        (importlib.import_module("acme_m3i"), "acme-m3i", "1.2.3"),
    ]


REGISTRY = build(plugin_modules())
CASES |= importlib.import_module("acme_m3i.contract_cases").CASES
ENTRIES = [pytest.param(entry, id=f"{group}/{name}") for (group, name), entry in sorted(REGISTRY.entries.items())]
SECTIONS = [f for f in dataclasses.fields(settings.Settings) if dataclasses.is_dataclass(f.default_factory)]


def hints(cls):
    """Option → its type."""
    found = typing.get_type_hints(cls)
    return {f.name: found[f.name] for f in dataclasses.fields(cls)}


@pytest.fixture
def all_installed(monkeypatch):
    """Hydra composes from the checkout's plugins and the example, installed or not."""
    monkeypatch.setattr("m3i.config.source.installed", lambda: REGISTRY)


# -- every component and every option -----------------------------------------------------------


def test_the_table_has_a_row_for_each_component_and_no_other():
    assert set(CASES) == {f"{group}/{name}" for group, name in REGISTRY.entries}


A_PROCESS_EACH = " imports nothing heavy"
CHECKS = [
    pytest.param(check, id=str(check), marks=pytest.mark.slow if str(check).endswith(A_PROCESS_EACH) else ())
    for check in checks((entry for _, entry in sorted(REGISTRY.entries.items())), CASES)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check, all_installed):
    check()


# -- the core's own options -------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS, ids=lambda f: f.name)
def test_core_options_are_documented_and_typed(section, all_installed):
    cls = section.default_factory
    assert (cls.__doc__ or "").strip()
    for option in dataclasses.fields(cls):
        assert field_docs(cls).get(option.name), f"{section.name}.{option.name} has no doc string"
        kind = hints(cls)[option.name]
        if kind is str or isinstance(kind, types.UnionType):
            continue  # any text is of the right type; the section's own check is tested below
        with pytest.raises(ConfigError, match=option.name):
            Experiment.compose(f"{section.name}.{option.name}=much")


BAD_SETTINGS = {
    "trace": {
        "samples": COUNT,
        "temperature": [-1.0],
        "top_p": [0.0, 1.1],
        "max_new_tokens": COUNT,
        "batch_size": COUNT,
    },
    "telemetry": {"max_traces": [1], "batch_size": COUNT},
    "attribution": {"n_bootstrap": [99]},
    "pairs": {"per_problem": COUNT, "at_most": COUNT, "corrected": ["some"], "overlong": ["cut"], "max_length": [7]},
    "reference": {"batch_size": COUNT},
    "evaluate": {
        "seeds": [[], [1, 1]],
        "temperature": [-0.1],
        "top_p": [0.0, 2.0],
        "max_new_tokens": COUNT,
        "threads": COUNT,
        "n_ctx": [15],
    },
    "judging": {"canaries": [-1]},
    "sweep": {
        "n_random": [-1],
        "n_excluding": [-1],
        "others": [["shame"], ["sham", "sham"]],
        "seeds": [[], [1, 1]],
        "primary": ["scores"],
        "alternative": ["more"],
        "alpha": [0.0, 0.5],
        "margin": [0.0, 0.5],
        "effect": [0.5, 1.0],
    },
    "ledger": {
        "account": [""],
        "budget_usd": [-0.1],
        "concurrency": COUNT,
        "timeout_s": [0.0],
        "deadline_s": [0.0],
        "batch_poll_s": [0.0],
    },
    "statistics": {"n_bootstrap": [99], "confidence": [0.5, 1.0], "power": [0.4, 1.0]},
    "store": {},
}
ANY_VALUE = {"seed", "file", "root", "path", "recording", "mode", "prices", "judge"}
"""`ledger.prices` is checked by the ledger, which every run opens first (tests/core/test_ledger.py), `sweep.judge`
by the sweep (tests/test_sweep.py)."""


@pytest.mark.parametrize("section", SECTIONS, ids=lambda f: f.name)
def test_core_options_refuse_bad_values(section):
    for option in dataclasses.fields(section.default_factory):
        if option.name in ANY_VALUE or hints(section.default_factory)[option.name] is bool:
            continue
        values = BAD_SETTINGS[section.name].get(option.name)
        assert values, f"name values of {section.name}.{option.name} that must be refused"
        for value in values:
            with pytest.raises(ConfigError, match=rf"{section.name}\.{option.name}( = |\[)"):
                section.default_factory(**{option.name: value})
