"""Composition: panels, aliases, presets, and every wrong word answered in one line."""

import re
from pathlib import Path

import pytest

from m3i.cli.main import run_command
from m3i.cli.secret_arguments import config_folders
from m3i.config.experiment import Experiment
from m3i.config.registry import Registry
from m3i.config.source import check_presets, parse_panel
from m3i.errors import ConfigError, PluginError


def test_the_default_experiment_composes() -> None:
    experiment = Experiment.compose()
    assert list(experiment.observers) == ["checker", "surprisal"]
    assert type(experiment.selector).__name__
    assert experiment.settings.seed == 0


def test_options_reach_the_component() -> None:
    experiment = Experiment.compose("selector=manual", "selector.layers=[3,1]", "trace.samples=7", "seed=5")
    assert list(experiment.selector.layers) == [3, 1]
    assert (experiment.settings.trace.samples, experiment.settings.seed) == (7, 5)


def test_panels_compose_and_aliases_allow_one_plugin_twice() -> None:
    experiment = Experiment.compose("observer=one:surprisal+two:surprisal+checker")
    assert list(experiment.observers) == ["one", "two", "checker"]
    assert type(experiment.observers["one"]) is type(experiment.observers["two"])


@pytest.mark.parametrize("value", ["a+a", "+a", "a+", "x:", ":a"])
def test_a_panel_that_cannot_be_read_is_an_error(value: str) -> None:
    with pytest.raises(ConfigError, match="observer="):
        parse_panel("observer", value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("observer=chekcer", "observer 'chekcer' is not installed; did you mean 'checker'? Available: "),
        ("selector=randm", "selector 'randm' is not installed; did you mean 'random'? Available: "),
        ("trainer.rnak=3", "option 'trainer.rnak' does not exist; did you mean 'trainer.rank'? Options of trainer: "),
        ("observer.checker.nonsense=3", "option 'observer.checker.nonsense' does not exist"),
        ("trainer.rank=many", "option 'trainer.rank'"),
        ("trainer.rank=0", "trainer.rank"),
        ("trace.samples=0", "trace.samples = 0: expected at least 1"),
        ("evaluate.seeds=[1,1]", "evaluate.seeds = [1, 1]: expected distinct seeds"),
        ("tracing.samples=1", "option 'tracing' does not exist"),
        ("+extra=1", "extra"),
        ("experiment=nothere", "experiment/nothere"),
        ("trace.file=${oc.env:HOME}", "option 'trace.file' reads the environment"),
        ("trace.file=/not/there.jsonl", "there is no such file"),
        ("ledger.budget_usd=inf", "ledger.budget_usd = inf: expected a finite number"),
        ("trace.temperature=1e999", "trace.temperature = inf: expected a finite number"),
        ("selector.k=99", "99"),
        ("selector=manual", "selector.layers"),
        ("plugin", "'plugin' is neither a subcommand nor an override; did you mean 'plugins'?"),
    ],
)
def test_a_wrong_word_is_one_line(
    override: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = run_command(
        [override] if "=" not in override else [override, f"store.root={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    )
    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["observer=claude", "trace.file=/not/there.jsonl"], "there is no such file"),
        (["-m", "observer=claude"], "usage: m3i cost OVERRIDES"),
        (["--help"], "usage: m3i cost OVERRIDES"),
    ],
)
def test_what_m3i_cost_cannot_take_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["cost", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [["ledger.recording=nosuch"], ["ledger.path={root}/text"]])
def test_a_ledger_that_cannot_be_used_is_found_before_the_first_stage(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "nobody-is-asked")
    (tmp_path / "text").write_text("no database " * 100)
    places = [f"store.root={tmp_path}/store", f"hydra.run.dir={tmp_path}/run"]
    assert run_command(["observer=claude", *places, *(word.format(root=tmp_path) for word in words)]) == 2
    said = capsys.readouterr().err
    assert "ledger" in said
    assert said.count("\n") == 1, "a stage ran first"
    assert not list((tmp_path / "store").glob("objects/*/*"))


@pytest.mark.parametrize(
    "flag", ["--config-dir", "--config-di", "--config-d", "--config-path", "--config-pa", "-cd", "-cp"]
)
def test_every_way_to_name_a_config_folder_is_looked_into_for_keys(flag: str) -> None:
    assert [*config_folders([f"{flag}=/here"]), *config_folders(["a=1", flag, "/there"])] == ["/here", "/there"]


def test_presets_of_one_name_are_refused_naming_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "clash_pkg" / "conf" / "experiment"
    folder.mkdir(parents=True)
    (tmp_path / "clash_pkg" / "__init__.py").touch()
    (folder / "smollm2.yaml").write_text("# @package _global_\nseed: 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match="preset 'experiment/smollm2' comes from 'm3i' and from 'clash-dist'"):
        check_presets(Registry(presets={"pkg://clash_pkg.conf": "clash-dist"}))
    with pytest.raises(PluginError, match=r"'gone-dist': preset path pkg://not_there\.conf does not"):
        check_presets(Registry(presets={"pkg://not_there.conf": "gone-dist"}))


@pytest.mark.parametrize(
    ("overrides", "section", "name", "value"),
    [
        (["ledger.prices={mine: {input: 1.0, output: 2.0}}"], "settings", "ledger", {"input": 1.0, "output": 2.0}),
        (["problems=reasoning_gym", "problems.config={max_terms: 3}"], "problems", "config", 3),
    ],
)
def test_an_option_that_is_a_mapping_takes_any_key(overrides, section, name, value):
    found = getattr(getattr(Experiment.compose(*overrides), section), name)
    held = found.prices if section == "settings" else found
    assert list(held.values()) == [value]


def test_a_section_takes_no_unknown_key():
    with pytest.raises(ConfigError, match=r"option 'ledger\.price' does not exist"):
        Experiment.compose("ledger.price={mine: 1}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("joblib", r"launcher 'joblib' is not installed; pip install 'm3i\[joblib\]'"),
        ("submitit_slurm", r"launcher 'submitit_slurm' is not installed; pip install 'm3i\[submitit\]'"),
        (
            "jobli",
            r"there is no launcher 'jobli'; did you mean 'joblib'\? M3I's extras install joblib \(m3i\[joblib\]\), ",
        ),
    ],
)
def test_a_launcher_that_is_not_installed_is_named_with_its_extra(name, message, monkeypatch, capsys):
    """With a Hydra that has no launcher but its own, as where no extra is installed."""
    from hydra.core.config_store import ConfigStore

    launchers = ConfigStore.instance().repo["hydra"].get("launcher", {})
    for file in [file for file in launchers if file != "basic.yaml"]:
        monkeypatch.delitem(launchers, file)
    assert run_command(["-m", f"hydra/launcher={name}", "seed=0,1"]) == 2
    assert re.search(message, capsys.readouterr().err)
