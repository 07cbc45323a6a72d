"""One small multirun under each of Hydra's launchers, with real workers: processes, a Ray cluster, a Slurm node.

Its jobs: two that work and share all stages up to the selection, and one that fails. The store is cold.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CANARY = "canary-4f1c9a7be2d83056"
WORDS = (
    *("experiment=acme", "observer=checker+acme", "problems.n_train=12", "problems.n_held_out=6", "trace.samples=2"),
    *("selector=random", "selector.k=2,3,0"),
)
FAILING = 2
"""Number of the job that has selector.k=0."""

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Environment of a user who has a third party's plugin and a key; workers inherit it."""
    plugins = tmp_path_factory.mktemp("plugins")
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet", "--target", plugins)
    source = ROOT / "tests" / "third_party" / "acme_m3i"
    subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA", "SLURM", "SUBMITIT", "RAY", "COV"))}
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(plugins), os.environ.get("PYTHONPATH", "")))),
        "OMP_NUM_THREADS": "1",
        "ACME_API_KEY": CANARY,
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONWARNINGS": "ignore",
    }
    return inherited | own


class Sweep:
    """A finished multirun."""

    def __init__(self, folder, environment, *words):
        self.folder = folder / "sweep"
        self.store = folder / "store"
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        places = (f"hydra.sweep.dir={self.folder}", f"store.root={self.store}")
        self.done = subprocess.run(
            [sys.executable, "-m", "m3i", "-m", *WORDS, *words, *places],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env=environment,
            timeout=800,
        )

    @property
    def said(self):
        return f"{self.done.stdout[-4000:]}\n{self.done.stderr[-4000:]}"

    def result(self, job):
        file = self.folder / str(job) / "result.json"
        assert file.is_file(), self.said
        return json.loads(file.read_text(encoding="utf-8"))

    def progress(self, job):
        lines = (self.folder / str(job) / "progress.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def content(self):
        """Stage, key and name of every file in the store → its hash, but of headers, some of which hold times."""
        return {
            (file.parts[-3], file.parts[-2], name): digest
            for file in self.store.glob("objects/*/*/stage.json")
            for name, digest in json.loads(file.read_text(encoding="utf-8"))["files"].items()
            if name != "header.json"
        }


@pytest.fixture(scope="module")
def basic(tmp_path_factory, environment):
    """What Hydra's own launcher makes of it: one job after the other in one process."""
    return Sweep(tmp_path_factory.mktemp("basic"), environment)


def missing(launcher, what):
    """Skips, or fails where every launcher must be there."""
    words = f"launcher {launcher}: {what}"
    if os.environ.get("M3I_REQUIRE_LAUNCHERS") == "1":
        pytest.fail(words)
    pytest.skip(words)


def need(launcher, *modules):
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        missing(launcher, f"{absent[0]} is not installed (pip install 'm3i[launchers]')")


@pytest.fixture(scope="module")
def ray_address(environment, tmp_path_factory):
    """A Ray cluster of two nodes, each with room for one job."""
    need("ray", "ray", "hydra_plugins.hydra_ray_launcher")
    ready = tmp_path_factory.mktemp("ray") / "address"
    nodes = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "ray_nodes.py", ready],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield wait_for(ready, nodes)
    nodes.communicate(timeout=60)  # its standard input ends, and with it the cluster


@pytest.fixture(scope="module")
def slurm_conf(environment, tmp_path_factory):
    """A Slurm cluster of one node with room for two jobs."""
    need("submitit_slurm", "hydra_plugins.hydra_submitit_launcher")
    path = f"{environment['PATH']}{os.pathsep}/usr/sbin"
    if any(shutil.which(program, path=path) is None for program in ("sbatch", "slurmctld", "slurmd", "munged")):
        missing("submitit_slurm", "Slurm is not installed (apt-get install slurm-wlm munge)")
    folder = tmp_path_factory.mktemp("slurm")
    node = subprocess.Popen(
        [ROOT / "tests" / "slurm" / "one_node.sh", folder],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(folder / "ready", node)
    yield folder / "slurm.conf"
    node.terminate()
    node.communicate(timeout=60)


def wait_for(file, process):
    """The file's text, as soon as the process has written it."""
    while not file.is_file():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    return file.read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module", params=["joblib", "submitit_local", "ray", "submitit_slurm"])
def sweep(request, tmp_path_factory, environment):
    """The multirun under one launcher."""
    launcher = request.param
    words = {
        "joblib": ("hydra.launcher.n_jobs=2",),
        "submitit_local": (),
        "ray": ("+hydra.launcher.ray.init.object_store_memory=null",),
        "submitit_slurm": ("hydra.launcher.cpus_per_task=1",),
    }[launcher]
    if launcher == "joblib":
        need("joblib", "joblib", "hydra_plugins.hydra_joblib_launcher")
    elif launcher == "submitit_local":
        need("submitit_local", "submitit", "hydra_plugins.hydra_submitit_launcher")
    elif launcher == "ray":
        words = (*words, f"hydra.launcher.ray.init.address={request.getfixturevalue('ray_address')}")
    else:
        environment = environment | {"SLURM_CONF": str(request.getfixturevalue("slurm_conf"))}
    return Sweep(tmp_path_factory.mktemp(launcher), environment, f"hydra/launcher={launcher}", *words)


def test_every_job_that_can_run_finishes_and_the_one_that_fails_is_said(sweep):
    assert [len(sweep.result(job)["layers"]["selected"]) for job in (0, 1)] == [2, 3]
    assert not (sweep.folder / str(FAILING) / "result.json").exists()
    assert sweep.done.returncode == 2, sweep.said
    said = [line for line in sweep.done.stderr.splitlines() if line.startswith("m3i: a job failed: ")]
    assert len(said) == 1, sweep.said
    assert "selector.k = 0: expected at least 1" in said[0]
    assert "Traceback" not in sweep.said


def test_plugins_of_a_third_party_work_in_the_workers(sweep):
    for job in (0, 1):
        rows = {row["place"]: row["distribution"] for row in sweep.result(job)["components"]}
        assert rows["observer.acme"] == rows["attributor.acme"] == "acme-m3i"
        assert rows["observer.checker"] == "m3i"
        assert sweep.result(job)["problems"]["n_train"] == 12  # 24 in acme's preset


def test_jobs_run_at_once_in_processes_of_their_own(sweep):
    begun = [sweep.progress(job)[0] for job in (0, 1)]
    ended = [sweep.progress(job)[-1] for job in (0, 1)]
    assert [event["event"] for event in (*begun, *ended)] == ["begin", "begin", "end", "end"]
    assert begun[0]["pid"] != begun[1]["pid"]
    assert max(event["at"] for event in begun) < min(event["at"] for event in ended)


def test_shared_stages_are_made_once_across_workers(sweep):
    rows = [row for job in (0, 1) for row in sweep.result(job)["stages"]]
    made = Counter(row["key"] for row in rows if not row["hit"])
    wanted = Counter(row["key"] for row in rows)
    assert made == dict.fromkeys(wanted, 1)
    shared = {row["stage"] for row in rows if wanted[row["key"]] == 2}
    assert {"problems", "trace", "telemetry", "observe", "attribute", "pairs", "reference", "base"} <= shared
    assert "train" not in shared
    assert list((sweep.store / "tmp").iterdir()) == []


def test_the_results_are_those_of_the_basic_launcher(sweep, basic):
    for job in (0, 1):
        assert sweep.result(job)["ids"] == basic.result(job)["ids"]
        assert sweep.result(job)["verdict"] == basic.result(job)["verdict"]
    assert sweep.content() == basic.content()
    assert {stage for stage, _key, _name in basic.content()} >= {"trace", "train", "export", "answer"}


def test_no_key_reaches_a_file(sweep):
    files = [file for file in (*sweep.folder.rglob("*"), *sweep.store.rglob("*")) if file.is_file()]
    assert len(files) > 10
    assert [file for file in files if CANARY.encode() in file.read_bytes()] == []
