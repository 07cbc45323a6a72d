"""A sweep as a user runs it: its jobs, going on after an end, arms that fail, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from schema_fields import unknown_fields
from small_run import SMALL as SMALL_RUN
from small_run import SmallRun

from m3i.cli.main import run_command
from m3i.progress.journal import read_progress
from m3i.sweep.schema import Sweep
from m3i.sweep.stored import read_sweep

SMALL = (*SMALL_RUN, "evaluate.seeds=[0]", "sweep.seeds=[0]")
SHARED = ("problems", "trace", "telemetry", "contrast", "select", "pairs", "reference", "base")


def command(store: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "m3i", "-m", "+sweep=control", *SMALL, *words, f"store.root={store}"]


def sweep(store: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(store, *words), capture_output=True, text=True, check=False, cwd=cwd)


def folder_in(cwd: Path) -> Path:
    (folder,) = (cwd / "sweeps").iterdir()
    return folder


def stored(store: Path) -> Counter[str]:
    return Counter(p.parent.parent.name for p in (store / "objects").glob("*/*/stage.json"))


def results(folder: Path) -> dict[str, dict]:
    return {str(p.parent.relative_to(folder)): json.loads(p.read_text()) for p in folder.glob("*/seed-*/result.json")}


@pytest.fixture(scope="module")
def finished(
    small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """A store and the folder of a finished sweep in which fewer sets exist than arms were asked for."""
    root = tmp_path_factory.mktemp("sweep")
    shutil.copytree(small_run.store, root / "store")
    done = sweep(root / "store", "selector.candidates=[1,2,3]", "selector.k=2", "sweep.n_random=4", cwd=root)
    assert done.returncode == 0, done.stderr
    return root / "store", folder_in(root), done


@pytest.mark.slow
def test_every_arm_runs_once_on_shared_stages(finished, small_run):
    store, folder, done = finished
    found = results(folder)
    # 3 sets of 2 of 3 layers, one of them attributed: two controls, though four were asked for
    assert set(found) == {f"{a}/seed-0" for a in ("attributed", "sham", "random-0", "random-1", "all", "shuffled")}
    assert "there are 2 other sets of layers" in done.stderr
    made = stored(store) - stored(small_run.store)
    assert {stage: made[stage] for stage in SHARED if made[stage]} == {"select": 1}  # of other candidates
    assert made["train"] == 6
    trained = {name: tuple(r["layers"]["selected"]) for name, r in found.items()}
    attributed = trained["attributed/seed-0"]
    sets = {attributed, trained["random-0/seed-0"], trained["random-1/seed-0"]}
    assert sets == {(1, 2), (1, 3), (2, 3)}
    assert trained["sham/seed-0"] == trained["shuffled/seed-0"] == attributed
    assert trained["all/seed-0"] == (1, 2, 3)
    assert all(r["arm"]["attributed"] == list(attributed) for r in found.values())


@pytest.mark.slow
def test_controls_do_what_their_names_say(finished):
    found = results(finished[1])
    sham = found["sham/seed-0"]
    assert sham["certificates"]["export"]["vacuous"]
    assert sham["judges"]["verifier"]["counts"]["tie"] == 10
    swapped = found["shuffled/seed-0"]["training"]
    assert swapped["counts"]["pairs: swapped"] == swapped["n_pairs"] // 2
    assert found["shuffled/seed-0"]["training"]["log"] != found["attributed/seed-0"]["training"]["log"]
    parameters = {name: r["parameters"]["trained"] for name, r in found.items()}
    assert parameters["random-0/seed-0"] == parameters["random-1/seed-0"] == parameters["attributed/seed-0"]


@pytest.mark.slow
def test_the_sweep_is_compared_and_says_its_floor(finished):
    _, folder, done = finished
    document = read_sweep(folder / "sweep.json")
    assert unknown_fields(Sweep.model_validate(document)) == []
    assert document["design"]["n_controls"] == 2
    assert document["primary"]["test"]["floor"] == pytest.approx(1 / 3)
    assert document["primary"]["test"]["p"] >= 1 / 3
    assert document["verdict"]["title"] in done.stdout
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "results.parquet").is_file()
    assert all(check["passed"] for check in document["checks"]), document["checks"]


@pytest.mark.slow
def test_the_same_command_makes_nothing_anew_and_another_plan_is_a_deviation(finished):
    store, folder, _ = finished
    before = stored(store)
    words = ["selector.candidates=[1,2,3]", "selector.k=2", "sweep.n_random=4"]
    again = sweep(store, *words, cwd=folder.parent.parent)
    assert again.returncode == 0, again.stderr
    assert stored(store) == before
    assert len(json.loads((folder / "plan.json").read_text())["registrations"]) == 1
    other = sweep(store, *words, "sweep.primary=accuracy", cwd=folder.parent.parent)
    assert other.returncode == 0, other.stderr
    plan = json.loads((folder / "plan.json").read_text())
    assert [r["primary"] for r in plan["registrations"]] == ["score", "accuracy"]
    assert plan["registrations"][1]["n_results"] == 6
    document = json.loads((folder / "sweep.json").read_text())
    assert document["design"]["primary"] == "score"
    assert any("accuracy" in sentence for sentence in document["plan"]["deviations"])


@pytest.mark.slow
def test_compare_needs_no_model(finished, tmp_path):
    _, folder, _ = finished
    code = (
        "import sys; from m3i.cli.main import run_command; code = run_command(sys.argv[1:]);"
        "print('HEAVY', sorted({'torch', 'transformers', 'llama_cpp'} & set(sys.modules)));"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", str(folder)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "HEAVY []" in done.stdout


@pytest.mark.slow
def test_arms_that_fail_are_told_and_do_not_stop_the_others(tmp_path, small_store):
    # An export error of one in a billion is out of reach: every trained arm fails, the sham has nothing to compare.
    done = sweep(
        small_store, "sweep.n_random=1", "sweep.others=[sham]", "exporter.max_relative_error=1e-9", cwd=tmp_path
    )
    assert done.returncode == 2
    said = "2 of 3 jobs did not finish (the same command runs only these); the first is arm attributed, seed 0"
    assert said in done.stderr
    assert "2/3 " in done.stderr
    assert "exporter.allow_dead=true" in done.stderr
    folder = folder_in(tmp_path)
    assert set(results(folder)) == {"sham/seed-0"}
    document = json.loads((folder / "sweep.json").read_text())
    assert document["verdict"]["kind"] == "untested"
    assert [f["arm"] for f in document["failures"]] == ["attributed", "random-0"]


def started(store, *words, cwd):
    """A sweep under way, in a process group of its own, that a signal can reach."""
    return subprocess.Popen(
        command(store, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell ignores it for us
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on(tmp_path, small_store):
    words = ["sweep.n_random=1", "sweep.others=[sham]"]
    process = started(small_store, *words, cwd=tmp_path)
    while not list(tmp_path.glob("sweeps/*/attributed/seed-0/result.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "run the same command again to continue" in said
    before = stored(small_store)
    done = sweep(small_store, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(results(folder_in(tmp_path))) == 3
    assert {stage: stored(small_store)[stage] for stage in SHARED} == {stage: before[stage] for stage in SHARED}


def at_work(folder: Path, attempt: int) -> int:
    """Controls that train at this attempt, or do what comes after it."""
    now = [read_progress(job) for job in folder.glob("sweeps/*/random-*/seed-*")]
    stages = [p.current.split()[0] for p in now if p.state == "running" and p.attempt == attempt and p.current]
    return sum(stage in ("train", "export", "answer") for stage in stages)


@pytest.mark.slow
def test_an_interrupt_ends_the_workers_of_joblib_too(tmp_path, small_store):
    """Ctrl-C reaches every process of the terminal; a cluster's SIGTERM may reach the first alone."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["sweep.n_random=2", "sweep.others=[]", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    for attempt, (number, end) in enumerate(((signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)), start=1):
        process = started(small_store, *words, cwd=tmp_path)
        while at_work(tmp_path, attempt) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        end(process.pid, number)
        _, said = process.communicate(timeout=240)  # its end comes once no worker holds the pipe any more
        assert process.returncode == 130, said
        assert "run the same command again to continue" in said
        assert "Traceback" not in said
    done = sweep(small_store, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(results(folder_in(tmp_path))) == {f"{a}/seed-0" for a in ("attributed", "random-0", "random-1")}
    assert not list((small_store / "tmp").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=3"], "seed=3: a sweep sets 'seed' for each job; choose training seeds with sweep.seeds"),
        (["arm=random-0"], "arm=random-0: a sweep sets 'arm' for each job"),
        (["trainer.rank=4,8"], "trainer.rank=4,8: +sweep=control runs the arms of one experiment"),
        (["sweep.primary=scores"], "sweep.primary = 'scores': expected score or accuracy"),
        (["sweep.judge=claude"], "sweep.judge = 'claude': no such judge is in the panel (verifier)"),
        (["sweep.others=[shame]"], "sweep.others = ['shame']: expected distinct ones of all, shuffled, sham"),
        (["sweep.n_randoms=3"], "sweep.n_randoms"),
        (["selector.attributor=nothere"], "no such attributor is in the panel"),
        (["sweep.seeds=[-1]"], "sweep.seeds = -1: expected training seeds from 0 to 4294967295"),
        (["sweep.n_random=1000000000"], "sweep.n_random = 1000000000: expected at least 0, and at most 10000"),
        (["sweep.margin=nan"], "sweep.margin = nan: expected a number in (0, 0.5)"),
        (["judge=claude"], "needs a key for anthropic: set ANTHROPIC_API_KEY"),
        (["observer=checker+claude"], "needs a key for anthropic: set ANTHROPIC_API_KEY"),
    ],
)
def test_what_is_refused_before_anything_runs(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert run_command(command(tmp_path / "store", *words)[3:]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.glob("sweeps/*/*"))


def test_a_sweep_without_multirun_is_refused(tmp_path):
    words = command(tmp_path / "store")
    assert words.pop(3) == "-m"
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "start it with -m" in done.stderr
