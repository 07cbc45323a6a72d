"""Every registered component, ours and third-party, through one table.

Add a component or an option and this file says what is missing: a value that must be refused, a second
valid value, or the remark that any value of its type is fine.
"""

import dataclasses
import importlib
import importlib.metadata
import inspect
import json
import random
import subprocess
import sys
import types
import typing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest
from m3i_claude.options import Effort, Thinking
from m3i_gemini.options import ThinkingLevel
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from m3i.artifacts import LayerScores, Problem, ScoreRow, TargetInfo
from m3i.component import RESULT_FREE, Component, field_docs, resolved_fields
from m3i.config import settings
from m3i.config.experiment import Experiment
from m3i.config.explain import explain
from m3i.config.registry import INTERFACES, PANELS, build
from m3i.config.source import RegistrySource
from m3i.errors import ConfigError, InputError
from m3i.interfaces import SelectionRequest
from m3i.stages.context import RunContext
from m3i.store.store import Recipe

TESTS = Path(__file__).parent
PLUGINS = TESTS.parent / "plugins"
ACME = TESTS / "third_party" / "acme_m3i"
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "llama_cpp", "scipy", "gguf", "reasoning_gym", "jinja2"}
HEAVY |= {"anthropic", "litellm", "google.genai", "openai", "pandas", "matplotlib", "mlflow", "sqlalchemy", "pyarrow"}


@dataclass(kw_only=True)
class Case:
    """What one component needs, refuses and accepts."""

    needs: dict = field(default_factory=dict)
    """Options without a default."""
    bad: dict = field(default_factory=dict)
    """Option → values that must be refused when the component is made."""
    other: dict = field(default_factory=dict)
    """Option → a second valid value, where none can be derived from the type."""
    together: dict = field(default_factory=dict)
    """Option → other options that its second value needs."""
    fixed: str = ""
    """Options of a shared base of which this component accepts the default alone."""
    derived: str = ""
    """Options that are filled in from others when empty, such as a file's hash."""
    free: str = ""
    """Options of which every value of the type is accepted (or refused only once a target is known)."""


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

PROMPTS = Path(settings.__file__).parent / "llm" / "prompts"
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
    "target/smollm2": Case(bad=CHAT_BAD, other=CHAT_OTHER, free="chat system_prompt"),
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
    "observer/acme": Case(bad={"threshold": [0.0, 1.0]}),
    "attributor/logit_lens": Case(bad=REPLACING, other=REPLACING_OTHER),
    "attributor/attribution_patching": Case(bad=ABLATING, other=ABLATING_OTHER),
    "attributor/ablation": Case(bad={**ABLATING, "strength": [0.0, 1.5, -1.0]}, other=ABLATING_OTHER),
    "attributor/votes": Case(),
    "attributor/acme": Case(),
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
    "selector/acme": Case(bad={"k": COUNT}),
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
ENTRIES = [pytest.param(entry, id=f"{group}/{name}") for (group, name), entry in sorted(REGISTRY.entries.items())]
OPTIONS = [
    pytest.param(entry, option, id=f"{group}/{name}.{option.name}")
    for (group, name), entry in sorted(REGISTRY.entries.items())
    for option in dataclasses.fields(entry.cls)
]
SECTIONS = [f for f in dataclasses.fields(settings.Settings) if dataclasses.is_dataclass(f.default_factory)]


def case_of(entry):
    case = CASES.get(f"{entry.group}/{entry.name}")
    assert case is not None, f"add {entry.group}/{entry.name} to CASES in tests/test_contract.py"
    return case


def make(entry, **options):
    return entry.cls(**{**case_of(entry).needs, **options})


def hints(cls):
    """Option → its type."""
    found = typing.get_type_hints(cls)
    return {f.name: found[f.name] for f in dataclasses.fields(cls)}


def second_value(entry, option):
    """A valid value that is not the default."""
    other = case_of(entry).other
    if option.name in other:
        return other[option.name]
    kind, default = hints(entry.cls)[option.name], option.default
    if kind is bool:
        return not default
    if kind is int:
        return default + 1
    if kind is float:
        return default / 2 if default else 0.5
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(value for value in kind if value is not default)
    pytest.fail(f"give a second valid value of {option.name} in CASES['{entry.group}/{entry.name}'].other")


@pytest.fixture
def all_installed(monkeypatch):
    """Hydra composes from the checkout's plugins and the example, installed or not."""
    monkeypatch.setattr("m3i.config.source.installed", lambda: REGISTRY)


# -- every component --------------------------------------------------------------------------


def test_the_table_has_no_row_for_what_does_not_exist():
    known = {f"{group}/{name}": entry for (group, name), entry in REGISTRY.entries.items()}
    assert set(CASES) <= set(known)
    for name, case in CASES.items():
        options = {f.name for f in dataclasses.fields(known[name].cls)}
        unknown = ({*case.needs, *case.bad, *case.free.split(), *case.together} | set(case.other)) - options
        # families of targets share rows of the table; an option that one of them lacks is no error there
        assert unknown <= set(CHAT_OTHER), f"{name} has no option {sorted(unknown)}"


@pytest.mark.parametrize("entry", ENTRIES)
def test_it_is_documented(entry):
    assert entry.summary().endswith((".", "?")), (
        f"{entry.cls.__qualname__} needs a docstring whose first line is a sentence"
    )
    assert len(entry.summary()) <= 120
    undocumented = [f.name for f in dataclasses.fields(entry.cls) if not field_docs(entry.cls).get(f.name)]
    assert not undocumented, f"{entry.cls.__qualname__}: give {undocumented} a doc string beneath the field"


@pytest.mark.parametrize("entry", ENTRIES)
def test_it_is_made_with_its_defaults(entry):
    component = make(entry)
    assert isinstance(component, Component)
    assert isinstance(component, INTERFACES[entry.group])
    required = {
        f.name
        for f in dataclasses.fields(entry.cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    assert required <= set(case_of(entry).needs)


@pytest.mark.parametrize("entry", ENTRIES)
def test_its_methods_have_the_signature_of_the_interface(entry):
    for name, wanted in vars(INTERFACES[entry.group]).items():
        if name.startswith("_") or not inspect.isfunction(wanted):
            continue
        got = getattr(entry.cls, name)
        assert list(inspect.signature(got).parameters) == list(inspect.signature(wanted).parameters), name
        assert inspect.iscoroutinefunction(got) == inspect.iscoroutinefunction(wanted), name
    assert list(inspect.signature(entry.cls.check).parameters) == ["self", "info"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_its_libraries_are_installed_distributions(entry):
    assert isinstance(entry.cls.libraries, tuple)
    for distribution in entry.cls.libraries:
        assert importlib.metadata.version(distribution)


@pytest.mark.parametrize("entry", ENTRIES)
def test_its_options_have_a_json_form(entry):
    fields = resolved_fields(make(entry))
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields


def test_importing_and_making_them_imports_nothing_heavy(tmp_path):
    plan = [
        (e.cls.__module__, e.cls.__qualname__, case_of(e).needs, f"{e.group}/{e.name}")
        for e in REGISTRY.entries.values()
    ]
    code = f"""
import importlib, json, sys
sys.path[:0] = {[str(PLUGINS), str(ACME)]!r}
found = {{}}
for module, name, needs, label in {plan!r}:
    getattr(importlib.import_module(module), name)(**needs)
    heavy = sorted(set({sorted(HEAVY)!r}) & set(sys.modules))
    if heavy and not found:
        found[label] = heavy
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


# -- every option -----------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "option"), OPTIONS)
def test_a_changed_option_changes_the_key_and_a_result_free_one_does_not(entry, option):
    case = case_of(entry)
    if option.name in case.derived.split():
        assert option.default != getattr(make(entry), option.name)
        return
    if option.name in case.fixed.split():
        assert case.bad[option.name]
        return
    value = second_value(entry, option)
    beside = case.together.get(option.name, {})
    before, after = make(entry, **beside), make(entry, **{**beside, option.name: value})
    assert getattr(before, option.name) != value, "the second value must not be the default"
    lab = types.SimpleNamespace(registry=REGISTRY)
    keys = {Recipe(stage="stage", component=RunContext.describe(lab, entry.group, c)).key for c in (before, after)}
    assert len(keys) == (1 if option.metadata.get(RESULT_FREE) else 2)


@pytest.mark.parametrize(("entry", "option"), OPTIONS)
def test_bad_values_are_refused_naming_the_option(entry, option):
    case = case_of(entry)
    kind = hints(entry.cls)[option.name]
    closed = kind is bool or (isinstance(kind, type) and issubclass(kind, Enum))
    if option.name in case.free.split() or (closed and option.name not in case.bad):
        return
    assert option.name in case.bad, (
        f"name values that {entry.group}/{entry.name}.{option.name} must refuse (CASES, bad), or list it under free"
    )
    for value in case.bad[option.name]:
        with pytest.raises((ConfigError, InputError), match=option.name):
            make(entry, **{option.name: value})


WRONG = {bool: "perhaps", int: "many", float: "much", str: ["a", "b"]}


@pytest.mark.parametrize(("entry", "option"), OPTIONS)
def test_a_wrong_type_is_one_clear_line(entry, option, all_installed):
    """Through the config that Hydra is given, as Hydra merges an override into it."""
    kind = hints(entry.cls)[option.name]
    if kind is typing.Any or typing.get_origin(kind) is typing.Union or isinstance(kind, types.UnionType):
        kind = next((k for k in typing.get_args(kind) if k is not type(None)), None)
        if kind is None:  # Any: OmegaConf cannot know; the component's own check is tested above
            assert option.name in case_of(entry).bad
            return
    origin = typing.get_origin(kind) or kind
    wrong = "nonsense" if issubclass(origin, Enum) else WRONG.get(origin, 3)
    config = RegistrySource("m3i", "m3i://components").load_config(f"{entry.group}/{entry.name}").config
    path = f"{entry.name}.{option.name}" if entry.group in PANELS else option.name
    with pytest.raises(OmegaConfBaseException) as caught:
        OmegaConf.update(config, path, wrong, merge=True)
    assert option.name in explain(caught.value)
    assert "\n" not in explain(caught.value)


CHOICES = [
    pytest.param(entry, option, member, id=f"{entry.group}/{entry.name}.{option.name}={member.value}")
    for entry in REGISTRY.entries.values()
    for option in dataclasses.fields(entry.cls)
    if isinstance(kind := hints(entry.cls)[option.name], type) and issubclass(kind, Enum)
    for member in kind
    if member.value not in case_of(entry).bad.get(option.name, [])
]


@pytest.mark.parametrize(("entry", "option", "member"), CHOICES)
def test_choices_are_written_as_they_are_documented(entry, option, member, all_installed):
    """OmegaConf takes an Enum's names; the documentation shows its values."""
    path = f"{entry.group}.{entry.name}" if entry.group in PANELS else entry.group
    needs = [f"{path}.{name}={value}" for name, value in case_of(entry).needs.items()]
    experiment = Experiment.compose(f"{entry.group}={entry.name}", *needs, f"{path}.{option.name}={member.value}")
    made = (
        getattr(experiment, f"{entry.group}s")[entry.name]
        if entry.group in PANELS
        else getattr(experiment, entry.group)
    )
    assert getattr(made, option.name) is member


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_misspelled_option_is_an_error_with_a_hint(entry, all_installed):
    path = f"{entry.group}.{entry.name}" if entry.group in PANELS else entry.group
    options = [f.name for f in dataclasses.fields(entry.cls)]
    misspelled = f"{options[0]}x" if options else "nothing"
    with pytest.raises(ConfigError, match=f"option '{path}.{misspelled}' does not exist") as caught:
        Experiment.compose(f"{entry.group}={entry.name}", f"{path}.{misspelled}=1")
    assert not options or f"did you mean '{path}.{options[0]}'?" in str(caught.value)


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


# -- behaviour that every plugin of a kind must have ------------------------------------------

INFO = TargetInfo(
    name="probe",
    revision="0",
    architecture="DeepseekV2ForCausalLM",
    family="probe",
    n_layers=12,
    n_parameters=1,
    n_active=1,
    n_experts=8,
    n_experts_active=2,
    dense_layers=(0,),
)


def some_scores(attributor):
    draw = random.Random(attributor)
    values = tuple(draw.random() for _ in range(INFO.n_layers))
    row = ScoreRow(observer="joint", scores=values, low=values, high=values, n_traces=5)
    return LayerScores(id=attributor, attributor=attributor, rows=(row,))


@pytest.mark.parametrize("entry", [p for p in ENTRIES if p.values[0].group == "selector"])
def test_a_selector_repeats_itself_and_stays_within_the_target(entry):
    request = SelectionRequest(info=INFO, scores={"votes": some_scores("votes")})
    attributor = {"attributor": "votes"} if "attributor" in hints(entry.cls) else {}
    first, second = make(entry, **attributor), make(entry, **attributor)
    first.check(INFO)
    selection = first.select(request)
    assert selection == second.select(request)
    assert selection.layers
    assert list(selection.layers) == sorted(set(selection.layers))
    assert set(selection.layers) <= set(selection.candidates) <= set(range(INFO.n_layers))
    assert selection.reason
    if "k" in hints(entry.cls):
        assert len(selection.layers) == first.k
        with pytest.raises(ConfigError, match=r"selector\.k = 13"):
            make(entry, k=13, **attributor).check(INFO)


SIZES = {"jsonl": {}}
"""Sources that take their number of problems from a file."""
SOURCES = [p for p in ENTRIES if p.values[0].group == "problems"]


@pytest.mark.parametrize("entry", SOURCES)
def test_a_problem_source_repeats_itself_and_keeps_its_sides_apart(entry):
    size = SIZES.get(entry.name, {"n_train": 12, "n_held_out": 9})
    train, held_out = make(entry, **size).draw()
    assert (list(train), list(held_out)) == tuple(map(list, make(entry, **size).draw()))
    ids = [p.id for p in (*train, *held_out)]
    assert train
    assert held_out
    assert len(set(ids)) == len(ids)
    assert (len(train), len(held_out)) == tuple(size.values()) or entry.name in SIZES
    other, _ = make(entry, **size, seed=1).draw()
    assert [p.id for p in other] != [p.id for p in train]


JUNK = ["", " ", "\n\n", "=", "answer", "7", "∞ 🙂 \u0000", "9" * 500, "1/0 = 1\nanswer 1", "(" * 300]


@pytest.mark.parametrize("entry", SOURCES)
def test_a_verifier_never_raises_on_text_and_knows_its_own_solution(entry):
    source = make(entry, **SIZES.get(entry.name, {"n_train": 3, "n_held_out": 1}))
    for problem in source.draw()[0]:
        assert isinstance(problem, Problem)
        for text in JUNK:
            verification = source.verify(problem, text)
            error = verification.first_error
            assert error is None or 0 <= error.start <= error.end <= len(text)
        if problem.solution:
            verification = source.verify(problem, problem.solution)
            assert verification.correct
            assert verification.first_error is None
