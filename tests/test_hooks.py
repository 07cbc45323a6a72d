"""One test a hook, called test_hook_<hook>: what a plugin registers is what runs. tests/test_docs.py demands each."""

from dataclasses import dataclass
from types import ModuleType

import pytest
from test_contract import plugin_modules

import m3i
from m3i.config.experiment import Experiment
from m3i.config.registry import HOOKS, build
from m3i.errors import PluginError


def plugin(hook, cls, name="mine"):
    """A module that registers `cls` under `name` through one hook."""
    module = ModuleType("mine")
    namespace = {"m3i": m3i, "cls": cls, "name": name}
    exec(f"@m3i.hookimpl\ndef {hook}(register):\n    register(name, cls)", namespace)
    setattr(module, hook, namespace[hook])
    return module, "mine-dist", "4.5"


@pytest.fixture
def compose(monkeypatch):
    """Registers a class through its hook beside the other plugins, and composes an experiment with it."""

    def made(group, cls, *overrides):
        hook = HOOKS[group]
        registry = build([*plugin_modules(), plugin(hook, cls)])
        entry = registry.find(group, "mine")
        assert (entry.cls, entry.distribution, entry.version) == (cls, "mine-dist", "4.5")
        lacking = type("Lacking", (m3i.Component,), {"__doc__": "Has no method."})
        with pytest.raises(PluginError, match=f"'mine-dist': {group} 'mine' .* lacks "):
            build([plugin(hook, dataclass(kw_only=True)(lacking))])
        monkeypatch.setattr("m3i.config.source.installed", lambda: registry)
        return Experiment.compose(f"{group}=mine", *overrides)

    return made


def test_hook_register_targets(compose):
    @dataclass(kw_only=True)
    class Mine(m3i.Component):
        """A target."""

        size: int = 1
        """Its size."""

        def describe(self): ...
        def load(self): ...

    assert compose("target", Mine, "target.size=3").target == Mine(size=3)


def test_hook_register_problems(compose):
    @dataclass(kw_only=True)
    class Mine(m3i.Component):
        """A source."""

        n: int = 1
        """How many."""

        def draw(self): ...
        def verify(self, problem, completion): ...

    assert compose("problems", Mine, "problems.n=3").problems == Mine(n=3)


def test_hook_register_observers(compose):
    @dataclass(kw_only=True)
    class Mine(m3i.Component):
        """An observer."""

        depth: int = 1
        """How deep."""

        async def audit(self, request): ...

    alone = compose("observer", Mine, "observer.mine.depth=3")
    assert alone.observers == {"mine": Mine(depth=3)}
    panel = compose("observer", Mine, "observer=checker+mine+again:mine", "observer.again.depth=2").observers
    assert list(panel) == ["checker", "mine", "again"]
    assert panel["again"] == Mine(depth=2)


def test_hook_register_attributors(compose):
    @dataclass(kw_only=True)
    class Mine(m3i.Component):
        """An attributor."""

        def attribute(self, request): ...

    assert list(compose("attributor", Mine, "attributor=votes+mine").attributors) == ["votes", "mine"]


def test_hook_register_selectors(compose):
    @dataclass(kw_only=True)
    class Mine(m3i.Component):
        """A selector."""

        def select(self, request): ...

    assert isinstance(compose("selector", Mine).selector, Mine)


def test_hook_register_trainers(compose):
    @dataclass(kw_only=True)
    class Mine(m3i.Component):
        """A trainer."""

        rank: int = 1
        """Rank."""

        def train(self, request): ...

    assert compose("trainer", Mine, "trainer.rank=2").trainer == Mine(rank=2)


def test_hook_register_exporters(compose):
    @dataclass(kw_only=True)
    class Mine(m3i.Component):
        """An exporter."""

        def base_fields(self): ...
        def export_base(self, target, probes, folder): ...
        def export(self, request): ...

    assert isinstance(compose("exporter", Mine).exporter, Mine)


def test_hook_register_judges(compose):
    @dataclass(kw_only=True)
    class Mine(m3i.Component):
        """A judge."""

        async def judge(self, request): ...

    assert list(compose("judge", Mine, "judge=mine+verifier").judges) == ["mine", "verifier"]


def test_hook_register_trackers(compose):
    @dataclass(kw_only=True)
    class Mine(m3i.Component):
        """A tracker."""

        place: str = ""
        """Where to."""

        def track_run(self, result, folder): ...
        def track_sweep(self, sweep, folder): ...

    assert compose("tracker", Mine, "tracker.mine.place=there").trackers == {"mine": Mine(place="there")}
    assert list(compose("tracker", Mine, "tracker=mine+again:mine").trackers) == ["mine", "again"]


def test_hook_register_presets(tmp_path, monkeypatch):
    folder = tmp_path / "preset_pkg" / "conf" / "experiment"
    folder.mkdir(parents=True)
    (tmp_path / "preset_pkg" / "__init__.py").touch()
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /selector: random\nselector: {seed: 5}\nseed: 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = ModuleType("mine")

    @m3i.hookimpl
    def register_presets(register):
        register("pkg://preset_pkg.conf")

    module.register_presets = register_presets
    registry = build([*plugin_modules(), (module, "mine-dist", "1")])
    assert registry.presets["pkg://preset_pkg.conf"] == "mine-dist"
    monkeypatch.setattr("m3i.config.source.installed", lambda: registry)
    experiment = Experiment.compose("experiment=mine")
    assert (experiment.selector.seed, experiment.settings.seed) == (5, 7)
    assert Experiment.compose("experiment=mine", "seed=8").settings.seed == 8
