"""The tracker `mlflow` with a real MLflow and its local store: what was logged is read back by MLflow's own client."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from m3i_mlflow import run_facts, sweep_facts
from m3i_mlflow.address import without_credentials
from m3i_mlflow.facts import key, leaves, text
from m3i_mlflow.tracker import MLflow
from small_run import SMALL

from m3i.engine.tracking import track_run
from m3i.engine.write import write_run
from m3i.errors import ConfigError, StageError, TrackingError
from m3i.results import RunArtifacts, build_result
from m3i.sweep.compare import build_sweep, to_json
from m3i.sweep.load import load_sweep

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "core"))

from synthetic_run import synthetic_run  # noqa: E402
from synthetic_sweep import jobs_of, random_world, synthetic_results, write_sweep  # noqa: E402


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One SQLite store for all tests, each with an experiment of its own: making its tables takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = Path.cwd()
    os.chdir(folder)
    yield f"sqlite:///{folder}/mlflow.db"
    os.chdir(before)


@pytest.fixture
def client(database):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=database)


@pytest.fixture
def tracker(database, request, client):
    return MLflow(tracking_uri=database, experiment=request.node.name)


def runs(client, tracker):
    experiment = client.get_experiment_by_name(tracker.experiment)
    return client.search_runs([experiment.experiment_id], max_results=1000)


def written(folder, **options):
    result = build_result(RunArtifacts(**{**synthetic_run(n_held_out=8), **options}))
    write_run(result, folder)
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


# -- one run ------------------------------------------------------------------------------------


def test_a_run_is_read_back_as_it_was(tracker, client, tmp_path):
    result = written(tmp_path / "run", **synthetic_run(n_held_out=8, models=True, seeds=(0, 1)))
    words = tracker.track_run(result, tmp_path / "run")
    (run,) = runs(client, tracker)
    assert words == f"experiment '{tracker.experiment}', run {run.info.run_id}"
    assert (run.info.status, run.info.run_name) == ("FINISHED", "attributed seed 0")

    assert run.data.params == {"target": "{}", "selector.k": "3", "judge.llamacpp.model": "smollm2", "seed": "0"}
    metrics = run.data.metrics
    for alias, judge in result["judges"].items():
        for outcome, n in judge["counts"].items():
            assert metrics[f"judge.{alias}.counts.{outcome}"] == n
        for end in ("value", "low", "high"):
            assert metrics[f"judge.{alias}.mean_score.{end}"] == judge["mean_score"][end]
        assert metrics[f"judge.{alias}.sign_test.p"] == judge["sign_test"]["p"]
    for side in ("base", "tuned", "difference"):
        assert metrics[f"accuracy.{side}.value"] == result["accuracy"][side]["value"]
    assert metrics["accuracy.p"] == result["accuracy"]["mcnemar"]["p"]
    assert metrics["stage.observe.checker.made_in_s"] == result["stages"][2]["made_in_s"]
    assert metrics["costs.judges_usd"] == result["costs"]["judges_usd"]

    history = client.get_metric_history(run.info.run_id, "train.loss")
    log = result["training"]["log"]
    assert [(m.step, m.value) for m in history] == [(int(row["step"]), row["loss"]) for row in log]
    assert len(history) == 40

    tags = run.data.tags
    assert (tags["m3i.arm"], tags["m3i.kind"], tags["m3i.seed"]) == ("attributed", "attributed", "0")
    assert (tags["m3i.version"], tags["m3i.layers"]) == (result["m3i"], "4 5 8")
    assert (tags["m3i.verdict"], tags["mlflow.note.content"]) == (
        result["verdict"]["kind"],
        result["verdict"]["sentence"],
    )
    assert tags["m3i.store.store.adapter"] == "a" * 32
    assert (tags["m3i.store.store.answers"], tags["m3i.store.store.answers.2"]) == ("x" * 32, "y" * 32)
    assert "m3i.draw" not in tags

    files = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert files == {"result.json", "report.html", "results.parquet"}
    for name in ("result.json", "report.html"):
        copy = Path(client.download_artifacts(run.info.run_id, name, str(tmp_path)))
        assert copy.read_bytes() == (tmp_path / "run" / name).read_bytes()
    table = pd.read_parquet(client.download_artifacts(run.info.run_id, "results.parquet", str(tmp_path)))
    own = table[table.judge == "verifier"]
    assert own.score.mean() == result["judges"]["verifier"]["mean_score"]["value"]
    assert not (tmp_path / "run" / "results.parquet").exists(), "a tracker leaves the run's folder as it is"


def test_a_result_is_logged_once_and_another_one_beside_it(tracker, client, tmp_path):
    result = written(tmp_path / "run")
    first = tracker.track_run(result, tmp_path / "run")
    again = result | {"created": "2027-01-01 00:00:00+0000"}
    again["config"] = result["config"] | {"tracker": {"mlflow": {"log_artifacts": False}}, "store": {"root": "/x"}}
    assert tracker.track_run(again, tmp_path / "run") == first
    assert len(runs(client, tracker)) == 1
    other = result | {"config": result["config"] | {"seed": 1}}
    assert tracker.track_run(other, tmp_path / "run") != first
    draw = result | {"arm": result["arm"] | {"name": "random-3", "kind": "random", "draw": 3}}
    tracker.track_run(draw, tmp_path / "run")
    found = {run.data.tags.get("m3i.draw") for run in runs(client, tracker)}
    assert (len(runs(client, tracker)), found) == (3, {None, "3"})


def test_artifacts_can_be_left_out(tracker, client, tmp_path):
    quiet = replace(tracker, log_artifacts=False)
    quiet.track_run(written(tmp_path / "run"), tmp_path / "run")
    assert client.list_artifacts(runs(client, tracker)[0].info.run_id) == []


def test_a_run_whose_logging_broke_off_is_filled_up(tracker, client, tmp_path):
    result = written(tmp_path / "run")
    place = tmp_path / "artifacts"
    place.write_text("a file where a folder should be")
    client.create_experiment(tracker.experiment, artifact_location=str(place))
    with pytest.raises(StageError, match=r"MLflow: \w+Error: "):
        tracker.track_run(result, tmp_path / "run")
    (broken,) = runs(client, tracker)
    assert broken.info.status == "FAILED"
    place.unlink()
    tracker.track_run(result, tmp_path / "run")
    (run,) = runs(client, tracker)
    assert (run.info.run_id, run.info.status) == (broken.info.run_id, "FINISHED")
    assert len(client.get_metric_history(run.info.run_id, "train.loss")) == 40
    assert len(client.list_artifacts(run.info.run_id)) == 3


def test_a_failure_says_where_the_results_are(tracker, client, tmp_path):
    result = written(tmp_path / "run")
    client.create_experiment(tracker.experiment)
    client.delete_experiment(client.get_experiment_by_name(tracker.experiment).experiment_id)
    with pytest.raises(TrackingError) as caught:
        track_run({"mlflow": tracker}, result, tmp_path / "run", overrides=["tracker=mlflow", "seed=1"])
    assert "was deleted there; restore it" in str(caught.value)
    assert f"to track them later: m3i track {tmp_path / 'run'} tracker=mlflow" in str(caught.value)


def test_hostile_names_and_long_values_are_made_to_fit(tracker, client, tmp_path, monkeypatch):
    monkeypatch.setenv("MINE_API_KEY", "a-key-nobody-may-see")
    config = {
        "observer": {"a/../../b": {"prompt": "x" * 7000}, "a_.._.._b": {"prompt": "y"}, "n" * 300: {"k": 1}},
        "problems": {"path": "see a-key-nobody-may-see", "exclude": ["1 + 1", "ü"], "half": "\ud83d"},
        "trace": {f"option{i}": i for i in range(250)},
    }
    result = written(tmp_path / "run", **synthetic_run(n_held_out=6, hostile=True, models=True) | {"config": config})
    for alias in ("x:y", "../z"):
        result["judges"][alias] = result["judges"]["verifier"]
    tracker.track_run(result, tmp_path / "run")
    (run,) = runs(client, tracker)
    params = run.data.params
    assert len(params) == len(dict(leaves(config))) == 256
    assert params[key("observer.a/../../b.prompt")] == "x" * 5999 + "…"
    assert params["observer.a_.._.._b.prompt"] == "y"
    assert params["problems.path"] == "see [MINE_API_KEY]"
    assert params["problems.exclude"] == '["1 + 1", "ü"]'
    assert params["problems.half"] == "\\ud83d"
    assert run.data.metrics[f"{key('judge.x:y.n')}"] == 6
    assert run.data.metrics[f"{key('judge.../z.n')}"] == 6
    everything = json.dumps([params, run.data.tags, run.data.metrics])
    assert "nobody-may-see" not in everything


@pytest.mark.parametrize("name", ["judge.mine.n", "plain", "a b-c_d.e"])
def test_a_name_that_mlflow_takes_stays(name):
    assert key(name) == name


@pytest.mark.parametrize("names", [("a/b", "a:b"), ("n" * 300, "n" * 301), ("ü", "ö")])
def test_changed_names_stay_apart_and_are_accepted(names):
    from mlflow.utils.validation import _validate_metric_name

    one, other = map(key, names)
    assert one != other
    for name in (one, other):
        _validate_metric_name(name)


def test_text_is_cut_where_mlflow_refuses_it():
    assert text("x" * 10, 10) == "x" * 10
    assert text("x" * 11, 10) == "x" * 9 + "…"
    assert text({"a": [1, None]}, 99) == '{"a": [1, null]}'


# -- sweeps -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Four arms at two training seeds, one job failed and one unreadable, compared."""
    folder = tmp_path_factory.mktemp("sweeps") / "control-1"
    jobs = jobs_of(["attributed", "random-0", "random-1", "random-2", "sham"], [0, 1])
    results = synthetic_results(jobs=jobs, rule=random_world(effect=0.2), n_held_out=12)
    write_sweep(folder, results, failed={("all", 0): "no memory"})
    document = build_sweep(load_sweep(folder))
    (folder / "sweep.json").write_text(to_json(document), encoding="utf-8")
    (folder / "report.html").write_text("page")
    (folder / "all" / "seed-0" / "result.json").write_text("{")
    return json.loads((folder / "sweep.json").read_text()), folder


def test_a_sweep_is_a_parent_run_with_its_verdict_and_children(tracker, client, sweep):
    document, folder = sweep
    early = folder / "random-1" / "seed-0"
    tracker.track_run(json.loads((early / "result.json").read_text()), early)
    (before,) = runs(client, tracker)
    words = tracker.track_sweep(document, folder)
    found = runs(client, tracker)
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in found if run is not parent]
    assert words == f"experiment '{tracker.experiment}', run {parent.info.run_id} with 9 below it"
    assert len(children) == 9
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert before.info.run_id in {run.info.run_id for run in children}, "the run tracked earlier is found by its tag"
    assert {(r.data.tags["m3i.arm"], r.data.tags["m3i.seed"]) for r in children} == {
        *jobs_of(["attributed", "random-0", "random-1", "random-2"], "01"),
        ("sham", "0"),
    }
    assert {run.info.status for run in found} == {"FINISHED"}

    metrics, primary = parent.data.metrics, document["primary"]
    for name in ("p", "floor", "n_controls", "n_extreme", "percentile"):
        assert metrics[f"primary.test.{name}"] == primary["test"][name]
    assert metrics["primary.test.significant"] == float(primary["test"]["significant"])
    for end in ("value", "low", "high"):
        assert metrics[f"primary.effect.difference.{end}"] == primary["effect"]["difference"][end]
    assert metrics["primary.attributed.t"] == primary["attributed"]["t"]
    assert metrics["jobs.failed"] == document["plan"]["jobs"]["failed"] == 1
    history = client.get_metric_history(parent.info.run_id, "primary.control_t")
    assert {m.step: m.value for m in history} == {i: place["t"] for i, place in enumerate(primary["controls"])}
    other = document["secondary"][0]
    assert metrics[f"secondary.{other['name'].replace(':', '_')}.n_problems"] == other["n_problems"]
    assert parent.data.tags["m3i.verdict"] == document["verdict"]["kind"]
    assert parent.data.params["registered.margin"] == "0.05"
    assert {a.path for a in client.list_artifacts(parent.info.run_id)} == {
        "sweep.json", "plan.json", "report.html", "results.parquet",
    }  # fmt: skip


def test_a_sweep_is_logged_once_and_anew_when_its_verdict_changes(tracker, client, sweep):
    document, folder = sweep
    quiet = replace(tracker, log_artifacts=False)
    words = quiet.track_sweep(document, folder)
    assert quiet.track_sweep(document | {"created": "2027-01-01 00:00:00+0000"}, folder) == words
    assert len(runs(client, tracker)) == 10
    changed = document | {"verdict": document["verdict"] | {"kind": "untested"}}
    assert quiet.track_sweep(changed, folder) != words
    assert len(runs(client, tracker)) == 11


def test_a_sweep_without_a_plan_or_a_test_has_what_there_is(sweep):
    document, _ = sweep
    bare = document | {
        "plan": document["plan"] | {"registered": None},
        "primary": document["primary"] | {"test": None, "effect": None, "attributed": None, "controls": []},
        "secondary": [],
    }
    facts = sweep_facts.facts(bare, name="x")
    assert not [m for m in facts.metrics if m.name.startswith(("primary.test", "primary.effect", "secondary"))]
    assert not [name for name in facts.params if name.startswith("registered")]


# -- secrets and the network --------------------------------------------------------------------------


def test_an_address_with_a_password_from_the_environment_is_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:word%2Fnobody-sees@127.0.0.1:9/path?token=hidden-too")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = written(tmp_path / "run")
    with pytest.raises(TrackingError) as caught:
        track_run({"mlflow": MLflow()}, result, tmp_path / "run", overrides=["tracker=mlflow"])
    message, shown = str(caught.value), []
    cause = caught.value
    while cause is not None:
        shown.append(str(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    assert "127.0.0.1" in message
    assert not [word for word in ("nobody-sees", "hidden-too") if word in " ".join(shown)]


@pytest.mark.parametrize(("asked", "n_attempts"), [(None, 4), ("1", 2)])
def test_a_server_that_does_not_answer_is_given_up_soon(tmp_path, monkeypatch, asked, n_attempts):
    """MLflow's own number of retries, 7, would keep every job of a sweep for minutes; what the user set stays."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    monkeypatch.setenv(name, asked or "")
    if asked is None:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    server = socket.create_server(("127.0.0.1", 0))
    attempts = []

    def hang_up():
        with suppress(OSError):
            while True:
                server.accept()[0].close()
                attempts.append(1)

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    result = written(tmp_path / "run")
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    try:
        with pytest.raises(TrackingError, match="Nothing is lost"):
            track_run({"mlflow": MLflow(tracking_uri=address)}, result, tmp_path / "run")
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()
    assert len(attempts) == n_attempts


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://me:p/w@host/db", ["p/w"]),
        ("http://me:a%40b@host", ["a%40b", "a@b"]),
        ("https://only-token@host", ["only-token"]),
        ("mssql://host/db?pwd=secret", ["pwd=secret"]),
    ],
)
def test_every_form_of_a_password_is_taken_out(monkeypatch, address, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    cleaned = without_credentials(f"no answer from {address} ({', '.join(words)})")
    assert "no answer from" in cleaned
    assert not [word for word in words if word in cleaned]


GUARD = """
import json, socket, sys, threading
attempts = []

def refuse(*args, **kwargs):
    attempts.append(str(args[1:] if isinstance(args[0], socket.socket) else args))
    raise OSError("no network in this test")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
"""


def guarded(code, folder):
    """Attempts to reach the network of a process without the variables by which MLflow knows a test or a CI."""
    own = ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    environment = {k: v for k, v in os.environ.items() if k not in own and not k.startswith(("JENKINS", "TF_BUILD"))}
    environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "HOME": str(folder)}
    end = "\nimport time\ntime.sleep(3)\nprint(json.dumps(attempts))"
    done = subprocess.run(
        [sys.executable, "-c", GUARD + code + end],
        capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LOGGING = """
from pathlib import Path
from m3i_mlflow import service
from m3i_mlflow.tracker import MLflow
if switched_on:
    service.NO_TELEMETRY.clear()
MLflow().track_run(json.loads(Path("run/result.json").read_text()), Path("run"))
assert Path("mlflow.db").is_file() and Path("mlruns").is_dir()
"""


@pytest.mark.slow
def test_nothing_is_sent_anywhere(tmp_path):
    written(tmp_path / "run")
    assert guarded(f"switched_on = False\n{LOGGING}", tmp_path) == []


@pytest.mark.slow
def test_without_the_switch_mlflow_would_call_its_makers(tmp_path):
    """So the guard sees what it is there to see."""
    written(tmp_path / "run")
    attempts = guarded(f"switched_on = True\n{LOGGING}", tmp_path)
    assert any("mlflow" in attempt for attempt in attempts)


@pytest.mark.slow
def test_two_processes_may_begin_one_store_at_once(tmp_path):
    code = """
import json, sys
from pathlib import Path
from m3i_mlflow.tracker import MLflow
folder = Path(sys.argv[1])
result = json.loads((folder / "result.json").read_text())
result["arm"]["seed"] = int(sys.argv[2])
print(MLflow(log_artifacts=False).track_run(result, folder))
"""
    written(tmp_path / "run")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "run"), str(seed)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment,
        )
        for seed in range(2)
    ]  # fmt: skip
    ends = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], ends
    assert len({out for out, _ in ends}) == 2


# -- installing and running ------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["mlflow", "sqlalchemy", "alembic"])
def test_a_missing_package_is_found_before_anything_expensive(monkeypatch, package):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else real(name, *a))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=rf"needs the package {package}.*pip install 'm3i\[mlflow\]'"):
        MLflow().check(None)
    if package != "mlflow":
        MLflow(tracking_uri="http://127.0.0.1:5000").check(None)


@pytest.mark.slow
def test_a_whole_run_is_tracked_and_its_result_does_not_depend_on_it(small_run, small_store, tmp_path):
    def ran(name, *words):
        places = (f"store.root={small_store}", f"hydra.run.dir={tmp_path / name}")
        command = [sys.executable, "-m", "m3i", *SMALL, *words, *places]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done, json.loads((tmp_path / name / "result.json").read_text())

    plain = json.loads((small_run.folder / "result.json").read_text())
    tracked_run, tracked = ran("tracked", "tracker=mlflow")
    assert tracked_run.returncode == 0, tracked_run.stderr
    assert "tracked by mlflow: experiment 'm3i', run " in tracked_run.stderr
    assert all(stage["hit"] for stage in tracked["stages"])
    assert tracked["ids"] == plain["ids"]
    assert tracked["judges"] == plain["judges"]

    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    try:
        failed, kept = ran("failed", "tracker=mlflow", "tracker.mlflow.tracking_uri=http://127.0.0.1:9")
    finally:
        del os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]
    assert failed.returncode == 2
    assert kept["ids"] == plain["ids"]
    assert (tmp_path / "failed" / "report.html").is_file()
    last = failed.stderr.strip().splitlines()[-1]
    assert f"m3i track {tmp_path / 'failed'} tracker=mlflow" in last

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("m3i").experiment_id])
    facts = run_facts.facts(tracked)
    assert len(run.data.params) == len(facts.params) > 60
    assert run.data.params["trainer.rank"] == str(tracked["config"]["trainer"]["rank"])
    assert not [name for name in run.data.params if name.startswith("tracker")]
