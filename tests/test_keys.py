"""Which stages an option makes again: every core option, and the separate seeds, through the engine itself.

The engine runs with a store that makes nothing: it answers each recipe with an empty artifact whose id is the recipe's
key, so that the keys alone tell what depends on what.
"""

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from test_contract import INFO, SECTIONS, hints, plugin_modules

import m3i
from m3i import stages
from m3i.artifacts import ScoreRow
from m3i.component import RESULT_FREE
from m3i.config.experiment import Experiment
from m3i.config.registry import build
from m3i.engine import run as engine
from m3i.engine.run import run
from m3i.progress.display import Display
from m3i.stages import context as lab
from m3i.store.store import StageRecord, Store


@dataclass(kw_only=True)
class Probe(m3i.Component):
    """A target with facts and no weights."""

    def describe(self):
        return INFO

    def load(self):
        raise AssertionError("nothing may be computed here")


def plugin():
    module = ModuleType("probe")

    @m3i.hookimpl
    def register_targets(register):
        register("probe", Probe)

    module.register_targets = register_targets
    return module, "probe", "1"


class Stop(Exception):
    """Every stage has been asked for."""


def empty(kind):
    """The least value of a type."""
    if dataclasses.is_dataclass(kind):
        types = typing.get_type_hints(kind)
        return kind(
            **{f.name: empty(types[f.name]) for f in dataclasses.fields(kind) if f.metadata.get("storage") != "none"}
        )
    origin = typing.get_origin(kind)
    if origin in (tuple, dict):
        return origin()
    if kind is np.ndarray:
        return np.zeros((1, 1))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    return kind() if kind in (int, float, bool, str) else None


DEFAULT = {}
"""The default experiment's keys, once they are known."""

FILLED = {
    "telemetry": {"starts": (0,)},
    "scores": {"rows": (ScoreRow(observer="joint", scores=(0.0,) * 12, low=(), high=(), n_traces=0),)},
}


@pytest.fixture
def keys(monkeypatch, tmp_path):
    """Overrides → {stage and label: key} of every stage of the engine."""
    registry = build([*plugin_modules(), plugin()])
    monkeypatch.setattr("m3i.config.source.installed", lambda: registry)
    seen = {}

    def answer(self, cls, recipe, make, waiting=None):
        seen[f"{recipe.stage} {recipe.label}".strip()] = recipe.key
        artifact = dataclasses.replace(empty(cls), id=recipe.key, **FILLED.get(cls.kind, {}))
        record = StageRecord(
            stage=recipe.stage, label=recipe.label, key=recipe.key, hit=True, why="", time_s=0, made_in_s=0,
            peak_memory_bytes=0,
        )  # fmt: skip
        return artifact, record

    def stop(**sections):
        raise Stop

    monkeypatch.setattr(Store, "get_or_make", answer)
    monkeypatch.setattr("m3i.results.build_result", stop)

    def of(*overrides):
        seen.clear()
        experiment = Experiment.compose("target=probe", f"store.root={tmp_path}/store", *overrides)
        with pytest.raises(Stop):
            run(experiment, run_dir=tmp_path / "run", quiet=True, registry=registry)
        return dict(seen)

    return of


@pytest.fixture
def remade(keys):
    """Overrides → names of the stages whose key they change."""

    def of(*overrides):
        before, after = DEFAULT or keys(), keys(*overrides)
        DEFAULT.update(before)
        return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}

    return of


SELECTED = {"select"}
TRAINED = {"train", "export", "answer tuned", "judge verifier"}
ANSWERED = {"answer base", "answer tuned", "judge verifier"}
SCORED = {f"attribute {a}" for a in ("ablation", "attribution_patching", "logit_lens", "votes")}


def test_equal_experiments_have_equal_keys(remade):
    assert remade() == set()


@pytest.mark.parametrize("arm", ["random-3", "excluding-0", "all", "shuffled", "sham"])
def test_the_display_counts_the_stages_of_every_arm(keys, monkeypatch, arm):
    announced = []
    monkeypatch.setattr(Display, "begin", lambda self, n_stages: announced.append(n_stages))
    n_stages = len(keys(f"arm={arm}"))
    assert announced == [n_stages]


def test_every_stage_of_the_default_experiment_is_there_and_counted_by_the_display(keys, monkeypatch):
    announced = []
    monkeypatch.setattr(Display, "begin", lambda self, n_stages: announced.append(n_stages))
    names = set(keys())
    assert {"problems", "trace", "telemetry", "contrast", "pairs", "reference", "base"} <= names
    assert SELECTED | TRAINED | ANSWERED | SCORED | {"observe checker", "observe surprisal"} <= names
    assert announced == [len(names)]


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("seed=1", TRAINED),
        ("trainer.rank=8", TRAINED),
        ("selector.k=2", SELECTED),  # and what follows where the layers differ: test below
        ("evaluate.seeds=[0,1]", ANSWERED),
        ("evaluate.temperature=0.5", ANSWERED),
        ("judging.seed=1", {"judge verifier"}),
        ("ledger.path=elsewhere", set()),
        ("attribution.seed=1", SCORED | SELECTED),
        ("pairs.seed=1", {"pairs", "reference"} | TRAINED),
        ("exporter.max_relative_error=0.2", TRAINED - {"train"}),
        ("exporter.base_type=f16", {"base", "answer base"} | TRAINED - {"train"}),
        ("exporter.n_threads=2", set()),
        ("statistics.confidence=0.9", set()),
        ("store.root=elsewhere", set()),
        ("arm=random-0", {"arm random-0"}),  # its layers are in the keys behind it, see below
        ("arm=sham", {"arm sham"}),
        ("draw_seed=1", set()),  # which the attributed arm has no draw for
        ("arm=shuffled", {"shuffle pairs", "shuffle reference"} | TRAINED),
        ("observer=checker", {"observe surprisal", "contrast"} | SCORED | SELECTED),
        ("judge=verifier+llamacpp", {"judge llamacpp"}),
    ],
)
def test_an_option_makes_again_what_depends_on_it_and_nothing_else(remade, override, stages, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert remade(override) == stages


def test_the_seeds_of_problems_and_traces_reach_everything_behind_them(keys, remade):
    everything = set(keys())
    assert remade("problems.seed=1") == everything
    assert remade("trace.seed=1") == everything - {"problems"}


def test_a_new_recording_makes_again_what_comes_from_the_ledger_and_what_is_behind_it(keys, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-a-real-key")
    panel = ("observer=claude+checker", "judge=claude+verifier")
    live, first, second = keys(*panel), *(keys(*panel, "ledger.mode=record", f"ledger.recording={r}") for r in "ab")
    behind = {"observe claude", "contrast", "judge claude"} | SCORED | SELECTED
    for one, other in ((live, first), (first, second)):
        assert {name for name in one if one[name] != other[name]} == behind
    assert keys(*panel, "ledger.mode=record", "ledger.recording=a") == first


def test_another_draw_seed_makes_the_draws_of_random_arms_again(keys):
    for arm, changed in (("random-0", {"arm random-0"}), ("excluding-0", {"arm excluding-0"}), ("all", set())):
        one, other = keys(f"arm={arm}"), keys(f"arm={arm}", "draw_seed=1")
        assert {name for name in one if one[name] != other[name]} == changed


def test_other_layers_are_another_adapter_and_a_sham_is_not_the_adapter_of_its_layers(keys, monkeypatch):
    plain = keys()
    monkeypatch.setitem(FILLED, "selection", {"layers": (1, 2)})
    other = keys()
    assert {name for name in plain if plain[name] != other[name]} == TRAINED
    assert keys("selector=manual", "selector.layers=[1,2]") == other | {
        "select": keys("selector=manual", "selector.layers=[1,2]")["select"]
    }
    monkeypatch.setitem(FILLED, "selection", {"layers": (1, 2), "zero_update": True})
    assert keys()["train"] != other["train"]


ALTERNATIVE = {
    "mode": "replay",
    "budget_usd": "1.5",
    "prices": "{mine: {input: 1.0, output: 2.0}}",
    "corrected": "only",
    "overlong": "error",
    "truncated": "true",
    "seeds": "[3,4]",
    "file": "own.jsonl",
    "at_most": "5",
    "others": "[sham]",
    "primary": "accuracy",
    "judge": "verifier",
    "alternative": "less",
}
NEEDS = {"canaries": "judge=llamacpp"}
"""Option → the component without which it is not read."""
NO_STAGE = {"statistics", "sweep"}
"""Sections that shape reports alone, or say which runs there are; reports are made anew every time."""


@pytest.mark.parametrize(
    ("section", "option"),
    [pytest.param(s, o, id=f"{s.name}.{o.name}") for s in SECTIONS for o in dataclasses.fields(s.default_factory)],
)
def test_every_core_option_changes_a_key_unless_it_cannot_change_a_result(
    keys, remade, section, option, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.jsonl").write_text("{}\n")
    kind = hints(section.default_factory)[option.name]
    value = ALTERNATIVE.get(option.name)
    if value is None:
        value = {int: lambda d: d + 1, float: lambda d: d * 0.9}.get(kind, lambda d: "elsewhere")(option.default)
    override = f"{section.name}.{option.name}={value}"
    needed = NEEDS.get(option.name)
    changed = remade(override) if needed is None else keys(needed) != keys(needed, override)
    assert bool(changed) == (not option.metadata.get(RESULT_FREE) and section.name not in NO_STAGE)


# -- the core's own source in the key ----------------------------------------------------------

CORE = Path(lab.__file__).parent
RESULT_FREE_CORE = ("ledger.",)
"""The ledger hands on what a provider answered and changes none of it; what was answered is in the recording."""
CONTRACT = {"artifacts", "errors", "interfaces", "component", "hookspecs"}
"""Declarations: what they mean is in the artifacts themselves, and in the store's format number."""
WORKERS = {"llamacpp": {"llamacpp_worker"}}
"""Modules that another one starts as a process."""


def imported(source):
    """Modules of the core that a piece of source imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("m3i."):
            found.add(node.module.removeprefix("m3i."))
    return found


def closure(modules):
    """The modules, and all that they import or start, less the contract."""
    seen, todo = set(), set(modules)
    while todo:
        name = todo.pop()
        file = CORE / f"{name.replace('.', '/')}.py"
        if name not in seen | CONTRACT and file.exists() and not name.startswith(RESULT_FREE_CORE):
            seen.add(name)
            todo |= imported(file.read_text(encoding="utf-8")) | WORKERS.get(name, set())
    return seen


def value_of(node, function):
    """The value of a constant expression in a function's source."""
    return eval(compile(ast.Expression(node), function.__module__, "eval"), function.__globals__)


def of_the_target():
    """Core modules in the target's own id, which is an input of every stage that uses the target."""
    target_id = lab.Lab.target_id.fget
    tree = ast.parse(textwrap.dedent(inspect.getsource(target_id)))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "core_hash"]
    return {name for call in calls for name in value_of(call.args[0], target_id)}


def declared(function):
    """(core modules, component's group) of a stage's call of `lab.make`."""
    for node in ast.walk(ast.parse(inspect.getsource(function))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "make":
            given = {k.arg: k.value for k in node.keywords}
            core = set(value_of(given["core"], function)) if "core" in given else set()
            if "inputs" in given and "lab.target_id" in ast.unparse(given["inputs"]):
                core |= of_the_target()
            group = ast.literal_eval(given["component"].elts[0]) if "component" in given else ""
            return core, group
    raise AssertionError(f"{function.__name__} makes nothing")


STAGES = list(dict.fromkeys(re.findall(r"\bstages\.(\w+)\(lab", inspect.getsource(engine.run_stages))))


@pytest.mark.parametrize("name", STAGES)
def test_core_modules_that_a_stage_runs_are_in_its_key(name):
    function = getattr(stages, name)
    core, group = declared(function)
    group = "exporter" if name == "base" else group
    needed = imported(inspect.getsource(function)) | core
    for (registered, _), entry in build(plugin_modules()).entries.items():
        package = entry.cls.__module__.split(".")[0]
        if registered == group and entry.distribution == "m3i":
            files = Path(sys.modules[package].__file__).parent.rglob("*.py")
            needed |= set().union(*(imported(file.read_text(encoding="utf-8")) for file in files))
    missing = closure(needed) - core
    assert not missing, (
        f"add {sorted(missing)} to core= of stages.{name}: an edit there must not answer from old results"
    )
