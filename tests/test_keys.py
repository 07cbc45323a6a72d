"""Which stages an option makes again: every core option, and the separate seeds, through the engine itself.

The engine runs with a store that makes nothing: it answers each recipe with an empty artifact whose id is the recipe's
key, so that the keys alone tell what depends on what.
"""

import dataclasses
import inspect
import re
import typing
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from probe_target import plugin
from test_contract import SECTIONS, hints, plugin_modules

from m3i import stages
from m3i.artifacts import ScoreRow
from m3i.component import RESULT_FREE
from m3i.config.experiment import Experiment
from m3i.config.registry import build
from m3i.engine import run as engine
from m3i.engine.run import run
from m3i.progress.display import Display
from m3i.store import source
from m3i.store.store import StageRecord, Store


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

    def stop(run):
        raise Stop

    monkeypatch.setattr(Store, "get_or_make", answer)
    monkeypatch.setattr("m3i.results.build.build_result", stop)

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
    monkeypatch.setattr(Display, "begin", lambda self, planned: announced.append(planned))
    names = list(keys(f"arm={arm}"))
    assert announced == [names]


def test_every_stage_of_the_default_experiment_is_there_and_counted_by_the_display(keys, monkeypatch):
    announced = []
    monkeypatch.setattr(Display, "begin", lambda self, planned: announced.append(set(planned)))
    names = set(keys())
    assert {"problems", "trace", "telemetry", "contrast", "pairs", "reference", "base"} <= names
    assert SELECTED | TRAINED | ANSWERED | SCORED | {"observe checker", "observe surprisal"} <= names
    assert announced == [names]


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


# -- source in the key --------------------------------------------------------------------------

FROM_AUDITS = {"observe checker", "observe surprisal", "contrast"} | SCORED | SELECTED
EDITS = {
    "m3i.stages.pairs": {"pairs", "reference"} | TRAINED,
    "m3i.stages.libraries": None,
    "m3i.models.batching": None,
    "m3i.audits.quotes": FROM_AUDITS,
    "m3i.audits.agreement": {"contrast"} | SCORED | SELECTED,
    "m3i.stages.judge": {"judge verifier"},
    "m3i.stages.injections": {"judge verifier"},
    "m3i.models.llamacpp.worker": {"base", "answer base"} | TRAINED - {"train"},
    "m3i.stages.answer": ANSWERED,
    "m3i.ledger.request": set(),  # no component of the default experiment asks a model
    "m3i.ledger.ledger": set(),
    "m3i.wording.run": set(),
    "m3i.progress.display": set(),
    "m3i.report.render": set(),
    "m3i.results.build": set(),
    "m3i.engine.run": set(),
    "m3i.stages.context": set(),
    "m3i.config.experiment": set(),
    "m3i.sweep.sweeper": set(),
}
"""Module → the stages of the default experiment that its edit makes again; None where only some effect is asserted."""


def forget():
    """What is kept of the source for the rest of a process."""
    for kept in (source._imported_by_module, source.core_hash, source.package_hash):
        kept.cache_clear()


@pytest.fixture
def edited(monkeypatch):
    """Pretends that a source file has another line."""

    def edit(module):
        file = source.core_modules()[module]
        files = dict(source.core_files()) | {file: source.core_files()[file] + b"# edited\n"}
        monkeypatch.setattr(source, "core_files", lambda: files)
        forget()

    yield edit
    forget()


@pytest.mark.parametrize(
    "module", [pytest.param(m, marks=pytest.mark.slow if i % 3 else ()) for i, m in enumerate(EDITS)]
)
def test_an_edit_makes_again_the_stages_that_import_the_module_and_no_other(remade, edited, module):
    remade()  # the keys before the edit
    edited(module)
    changed = remade()
    wanted = EDITS[module]
    assert changed == wanted if wanted is not None else changed


def test_an_edit_of_what_language_models_are_asked_makes_their_audits_again(keys, edited, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-a-real-key")
    before = keys("observer=claude+checker")
    edited("m3i.llm.prompt_fields")
    after = keys("observer=claude+checker")
    assert {n for n in before if before[n] != after[n]} == {"observe claude", "contrast"} | SCORED | SELECTED


STAGES = list(dict.fromkeys(re.findall(r"\bstages\.(\w+)\.run\(", inspect.getsource(engine.run_stages))))


ABOVE = ("engine", "cli", "report", "wording", "progress", "results", "sweep")


@pytest.mark.parametrize("name", STAGES)
def test_the_work_of_a_stage_is_in_its_key(name):
    found = source.closure([f"m3i.stages.{name}"])
    assert f"m3i.stages.{name}" in found
    assert not {
        m for m in found if m.startswith(("m3i.engine", "m3i.cli", "m3i.report", "m3i.wording", "m3i.progress"))
    }


def test_every_stage_module_is_called_by_the_engine():
    files = {file.stem for file in Path(stages.__file__).parent.glob("*.py")}
    shared = {"__init__", "context", "injections", "libraries", "run_async"}
    assert files - shared == set(STAGES)


SOURCE = b"""
import json
import m3i
import m3i.models.batching
from m3i import make_finding as mark
from m3i.statistics import holm
from typing import TYPE_CHECKING

from .near import thing

if TYPE_CHECKING:
    from m3i.report import render
else:
    import m3i.problems.answers

WORKER = "m3i.models.llamacpp.worker"


def later():
    from m3i.models.llamacpp.session import LlamaSession

    return m3i.read_json_lines
"""


def test_imports_are_found_wherever_they_stand():
    found = set(source._modules_of(source.imported(SOURCE, "mine.package")))
    assert found == {
        "m3i.audits.quotes",
        "m3i.models.batching",
        "m3i.models.llamacpp.session",
        "m3i.models.llamacpp.worker",
        "m3i.problems.answers",
        "m3i.statistics",
        "m3i.statistics.holm",
        "m3i.store.files",
    }
    assert "mine.package.near.thing" in source.imported(SOURCE, "mine.package")
    assert "m3i.report.render" not in source.imported(SOURCE)


def test_the_source_of_a_plugin_is_its_package_and_what_it_imports(tmp_path, monkeypatch, edited):
    for name, text in (
        ("one", "import m3i\n\nmake = m3i.make_finding\n"),
        ("two", "from one_of_mine import x\n"),
        ("three", "import json\n"),
    ):
        (tmp_path / f"{name}_of_mine").mkdir()
        (tmp_path / f"{name}_of_mine" / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = frozenset({"one_of_mine", "two_of_mine", "three_of_mine"})

    def hashes():
        source._package_files.cache_clear()
        source._imported_by_package.cache_clear()
        forget()
        return [source.package_hash(f"{name}_of_mine", plugins) for name in ("one", "two", "three")]

    before = hashes()
    (tmp_path / "one_of_mine" / "work.py").write_text("x = 1\n")
    after = hashes()
    assert [a != b for a, b in zip(before, after, strict=True)] == [True, True, False]
    edited("m3i.audits.quotes")
    assert [a != b for a, b in zip(after, hashes(), strict=True)] == [True, True, False]
    with pytest.raises(LookupError, match=r"no module m3i\.stages\.trase in m3i/"):
        source.core_hash("m3i.stages.trase")
