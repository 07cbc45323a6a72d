"""The plugin manager: everything that would be silent elsewhere is an error that names the distribution."""

import importlib.metadata
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import m3i
from m3i.config import registry
from m3i.errors import ConfigError, PluginError


@dataclass(kw_only=True)
class Good(m3i.Component):
    """Picks layer 0."""

    k: int = 1
    """How many."""

    def select(self, request):
        raise AssertionError("never called here")


@dataclass(kw_only=True)
class Lacking(m3i.Component):
    """Has no principal method."""


class NotADataclass(m3i.Component):
    """Options would be lost."""

    def select(self, request):
        raise AssertionError("never called here")


def plugin(name: str = "fake", **functions: object) -> ModuleType:
    module = ModuleType(name)
    for key, function in functions.items():
        setattr(module, key, m3i.hookimpl(function))
    return module


def registers(name: str, cls: type) -> object:
    def register_selectors(register):
        register(name, cls)

    return register_selectors


def test_a_component_is_found_with_its_origin() -> None:
    found = registry.build([(plugin(register_selectors=registers("good", Good)), "acme", "1.0")])
    entry = found.find("selector", "good")
    assert (entry.cls, entry.distribution, entry.version, entry.summary()) == (Good, "acme", "1.0", "Picks layer 0.")
    assert found.entry_of("selector", Good()).name == "good"


def test_unknown_name_gets_a_hint_and_the_list() -> None:
    found = registry.build([(plugin(register_selectors=registers("good", Good)), "acme", "1.0")])
    with pytest.raises(
        ConfigError, match=r"selector 'goood' is not installed; did you mean 'good'\? Available: good \(acme\)"
    ):
        found.find("selector", "goood")


def test_a_name_registered_twice_names_both_distributions() -> None:
    one = plugin("one", register_selectors=registers("good", Good))
    two = plugin("two", register_selectors=registers("good", Good))
    with pytest.raises(PluginError, match=r"'good' is registered twice: by 'first'.*and by 'second'"):
        registry.build([(one, "first", "1"), (two, "second", "1")])


def test_a_misspelled_hook_names_the_distribution_and_the_hook() -> None:
    module = plugin(register_selector=lambda register: None)
    with pytest.raises(
        PluginError, match=r"'acme' implements the unknown hook 'register_selector'; did you mean 'register_selectors'"
    ):
        registry.build([(module, "acme", "1")])


def test_a_plugin_without_hooks_is_an_error() -> None:
    module = ModuleType("fake")
    module.register_selectors = registers("good", Good)  # type: ignore[attr-defined]  # the mark was forgotten
    with pytest.raises(PluginError, match="'fake' of distribution 'acme' implements no hook; mark its functions"):
        registry.build([(module, "acme", "1")])


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Lacking, r"'acme': selector 'x' \(Lacking\) lacks select\(\)"),
        (NotADataclass, "must be a dataclass derived from m3i.Component"),
        (int, "must be a dataclass derived from m3i.Component"),
    ],
)
def test_what_is_no_component_is_refused(cls: type, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        registry.build([(plugin(register_selectors=registers("x", cls)), "acme", "1")])


@pytest.mark.parametrize("name", ["", "a+b", "a:b", "a b", "a/b", "a,b"])
def test_names_that_hydra_would_read_otherwise_are_refused(name: str) -> None:
    with pytest.raises(PluginError, match="empty or contains one of"):
        registry.build([(plugin(register_selectors=registers(name, Good)), "acme", "1")])


def test_a_hook_that_raises_names_the_distribution() -> None:
    def register_selectors(register):
        raise KeyError("boom")

    with pytest.raises(PluginError, match="of distribution 'acme' failed: KeyError"):
        registry.build([(plugin(register_selectors=register_selectors), "acme", "1")])


def test_a_plugin_that_does_not_import_names_its_distribution(tmp_path: Path) -> None:
    (tmp_path / "broken_plugin.py").write_text("import a_module_that_is_not_there\n")
    info = tmp_path / "broken_dist-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[m3i]\nbroken = broken_plugin\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from m3i.cli.main import run_command;"
        "sys.exit(run_command(['plugins']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "plugin 'broken' (broken_plugin) of distribution 'broken-dist' 1.0 cannot be imported" in done.stderr
    assert "a_module_that_is_not_there" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_entry_point_of_ours_is_a_plugin_folder_and_the_other_way_round() -> None:
    points = {p.value for p in importlib.metadata.entry_points(group="m3i") if p.dist and p.dist.name == "m3i"}
    folders = {p.parent.name for p in (Path(__file__).parents[2] / "plugins").glob("*/__init__.py")}
    assert points == folders


def test_loading_the_registry_imports_nothing_heavy() -> None:
    code = textwrap.dedent("""
        import sys
        from m3i.config.registry import installed
        installed()
        heavy = {"torch", "transformers", "peft", "trl", "datasets", "llama_cpp", "scipy", "litellm", "gguf"}
        print(sorted(heavy & set(sys.modules)))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
