"""Trackers are the last thing of a run: they change nothing, and one that fails loses nothing."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from synthetic_run import synthetic_run
from test_contract import plugin_modules

import m3i
from m3i.cli.main import run_command
from m3i.cli.track import track_command
from m3i.config.experiment import Experiment
from m3i.config.registry import build
from m3i.engine.tracking import of_trackers, track_run, track_sweep
from m3i.engine.write import write_run
from m3i.errors import ConfigError, InputError, M3IError, TrackingError
from m3i.results import RunArtifacts, build_result
from m3i.sweep.compare import FORMAT as SWEEP_FORMAT

seen = []


@dataclass(kw_only=True)
class Notebook(m3i.Component):
    """Writes down what it is handed."""

    fails: str = m3i.option("", result_free=True)
    """What it fails with."""

    def track_run(self, result, folder):
        if self.fails:
            raise RuntimeError(self.fails)
        seen.append(("run", result["verdict"]["kind"], folder))
        return f"page {len(seen)}"

    def track_sweep(self, sweep, folder):
        seen.append(("sweep", sweep["verdict"]["kind"], folder))
        return f"page {len(seen)}"


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """`tracker=notebook` beside the plugins of the checkout."""
    seen.clear()
    module = ModuleType("notebook")
    module.register_trackers = m3i.hookimpl(lambda register: register("notebook", Notebook))
    registry = build([*plugin_modules(), (module, "notebook-dist", "1")])
    monkeypatch.setattr("m3i.config.source.installed", lambda: registry)


@pytest.fixture
def run(tmp_path):
    result = build_result(RunArtifacts(**synthetic_run(n_held_out=5)))
    write_run(result, tmp_path / "run")
    return result, tmp_path / "run"


def test_there_is_no_tracker_unless_one_is_chosen():
    assert Experiment.compose().trackers == {}
    assert Experiment.compose().config["tracker"] is None
    assert Experiment.compose("tracker=notebook").trackers == {"notebook": Notebook()}
    assert list(Experiment.compose("tracker=a:notebook+b:notebook", "tracker.b.fails=yes").trackers) == ["a", "b"]
    assert Experiment.compose("~tracker").trackers == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tracker=notebok"], "tracker 'notebok' is not installed; did you mean 'notebook'?"),
        (["tracker.fails=x"], "option 'tracker.fails' does not exist"),
        (["+tracker.mine=3"], "no tracker is chosen"),
        (["tracker=notebook", "tracker.notebook.fail=x"], "did you mean 'tracker.notebook.fails'?"),
    ],
)
def test_a_wrong_word_is_an_error(overrides, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        Experiment.compose(*overrides)


def test_a_preset_may_choose_a_tracker_and_the_command_line_take_it_away(tmp_path, monkeypatch):
    folder = tmp_path / "tracking_presets" / "conf" / "experiment"
    folder.mkdir(parents=True)
    (tmp_path / "tracking_presets" / "__init__.py").touch()
    (folder / "tracked.yaml").write_text("# @package _global_\ndefaults:\n  - override /tracker: notebook\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = ModuleType("presets")
    module.register_presets = m3i.hookimpl(lambda register: register("pkg://tracking_presets.conf"))
    module.register_trackers = m3i.hookimpl(lambda register: register("notebook", Notebook))
    registry = build([*plugin_modules(), (module, "notebook-dist", "1")])
    monkeypatch.setattr("m3i.config.source.installed", lambda: registry)
    assert list(Experiment.compose("experiment=tracked").trackers) == ["notebook"]
    assert list(Experiment.compose("experiment=tracked", "tracker=again:notebook").trackers) == ["again"]


def test_every_tracker_is_tried_and_the_error_says_how_to_go_on(run):
    result, folder = run
    overrides = ("seed=3", "tracker=a:notebook+b:notebook", "tracker.a.fails=full disk", "judge=verifier")
    experiment = Experiment.compose(*overrides)
    notes = []
    with pytest.raises(TrackingError) as caught:
        track_run(experiment.trackers, result, folder, overrides=experiment.overrides, note=notes.append)
    assert seen == [("run", result["verdict"]["kind"], folder)]
    assert notes == ["tracked by b: page 1"]
    message = str(caught.value)
    assert "tracker 'a' failed: RuntimeError: full disk" in message
    assert f"result.json and report.html are in {folder}" in message
    assert f"m3i track {folder} tracker=a:notebook+b:notebook 'tracker.a.fails=full disk'" in message
    assert "seed=3" not in message
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_key_in_a_trackers_error_is_not_repeated(run, monkeypatch):
    monkeypatch.setenv("MINE_API_KEY", "a-key-nobody-may-see")
    with pytest.raises(TrackingError) as caught:
        track_run({"a": Notebook(fails="refused a-key-nobody-may-see, Bearer abcdefghijklm")}, *run)
    assert "[MINE_API_KEY]" in str(caught.value)
    assert "nobody-may-see" not in str(caught.value)
    assert "abcdefghijklm" not in str(caught.value)


def test_an_interrupt_is_no_failure_of_the_tracker(run):
    class Interrupted(Notebook):
        def track_run(self, result, folder):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        track_run({"a": Interrupted()}, *run)


def test_of_trackers_keeps_what_chooses_and_sets_them():
    given = ["tracker=x", "+tracker=x", "++tracker.x.y=1", "experiment=mine", "trackers=1", "seed=1", "experimental=2"]
    assert of_trackers(given) == given[:4]


# -- m3i track -----------------------------------------------------------------------------------


def test_a_finished_run_can_be_tracked_later(run, capsys):
    result, folder = run
    track_command([str(folder), "tracker=notebook"])
    assert seen == [("run", result["verdict"]["kind"], folder)]
    assert capsys.readouterr().out == "tracked by notebook: page 1\n"


STORED_SWEEP = Path(__file__).parents[2] / "docs" / "results" / "tiny-control" / "sweep.json"


def test_a_sweep_is_known_by_its_file(run):
    _, folder = run
    sweep = json.loads(STORED_SWEEP.read_text(encoding="utf-8"))
    (folder / "sweep.json").write_text(json.dumps(sweep))
    track_command([str(folder), "tracker=notebook"])
    assert seen == [("sweep", sweep["verdict"]["kind"], folder)]
    track_sweep({}, {}, folder)
    assert len(seen) == 1


def test_a_damaged_sweep_is_not_tracked(run):
    _, folder = run
    (folder / "sweep.json").write_text(json.dumps({"format": SWEEP_FORMAT, "verdict": {"kind": "untested"}}))
    with pytest.raises(InputError, match=r"sweep\.json: m3i: field required; restore the file, or compare the sweep"):
        track_command([str(folder), "tracker=notebook"])
    assert seen == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no JSON object"),
        ("{}", "format None"),
        ('{"format": NaN}', "NaN is not a JSON number"),
    ],
)
@pytest.mark.parametrize("name", ["result.json", "sweep.json"])
def test_a_file_that_is_no_result_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        track_command([str(tmp_path), "tracker=notebook"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: m3i track"),
        (["tracker=notebook"], "usage: m3i track"),
        (["FOLDER", "--all"], "usage: m3i track"),
        (["FOLDER"], "no tracker is chosen"),
        (["FOLDER", "tracker=notebook"], "there is neither a result.json nor a sweep.json"),
        (["FOLDER", "tracker=nothing"], "tracker 'nothing' is not installed"),
    ],
)
def test_wrong_words_of_the_command(tmp_path, arguments, message):
    given = [str(tmp_path) if a == "FOLDER" else a for a in arguments]
    with pytest.raises(M3IError, match=message):
        track_command(given)


# -- addresses with credentials ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "https://user:word-nobody-sees@somewhere",
        "https://word-nobody-sees@somewhere",
        "postgresql://user:word-nobody-sees/x@somewhere/db",
        "'https://user:word-nobody-sees@somewhere'",
    ],
)
def test_an_address_with_credentials_reaches_no_disk_and_no_screen(tmp_path, monkeypatch, capsys, address):
    monkeypatch.chdir(tmp_path)
    argument = f"tracker.mlflow.tracking_uri={address}"
    assert run_command(["tracker=mlflow", argument]) == 2
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    preset = tmp_path / "conf" / "experiment" / "mine.yaml"
    preset.write_text(f"# @package _global_\ntracker:\n  mlflow:\n    tracking_uri: {address}\n")
    assert run_command([f"--config-dir={tmp_path}/conf", "tracker=mlflow", "+experiment=mine"]) == 2
    preset.unlink()
    assert "word-nobody-sees" not in "".join(capsys.readouterr())
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    with pytest.raises(ConfigError) as caught:
        Experiment.compose("tracker=mlflow", argument)
    assert "word-nobody-sees" not in str(caught.value)
    assert "tracking_uri = '[an address]'" in str(caught.value)


def test_an_at_sign_elsewhere_is_no_credential(tmp_path):
    folder = Path("/data/group@home/mlflow.db")
    uri = f"sqlite:///{folder}"
    assert Experiment.compose("tracker=mlflow", f"tracker.mlflow.tracking_uri={uri}").trackers["mlflow"].tracking_uri
