"""The whole experiment on the shipped target, as a user runs it: in processes, on one store, and when it goes wrong."""

import html
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from schema_fields import unknown_fields
from small_run import SMALL, SmallRun

from m3i.results.schema import Result
from m3i.results.stored import read_result

SHARED = ("problems", "trace", "telemetry", "contrast", "pairs", "reference", "base")


def command(store: Path, *words: str, out: Path) -> list[str]:
    multirun = [f"hydra.sweep.dir={out}"] if "-m" in words else [f"hydra.run.dir={out}"]
    return [sys.executable, "-m", "m3i", *words, *SMALL, *multirun, f"store.root={store}"]


def run(store: Path, *words: str, out: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(store, *words, out=out), capture_output=True, text=True, check=False, cwd=out.parent)
    assert not check or done.returncode == 0, done.stderr
    return done


def stored(store: Path) -> Counter[str]:
    """Number of artifacts a stage."""
    return Counter(p.parent.parent.name for p in (store / "objects").glob("*/*/stage.json"))


def test_a_run_ends_with_a_result_a_page_and_a_summary(small_run: SmallRun) -> None:
    folder = small_run.folder
    result = read_result(folder / "result.json")
    assert unknown_fields(Result.model_validate(result)) == []
    page = (folder / "report.html").read_text()
    assert str(folder / "report.html") in small_run.printed
    assert result["verdict"]["found"] in small_run.printed
    assert result["verdict"]["found"] in html.unescape(page)
    counted = result["judges"]["verifier"]["counts"]
    assert sum(counted[k] for k in ("base", "tuned", "tie", "split", "missing")) == 10
    assert stored(small_run.store)["train"] == 1


def test_the_second_run_is_answered_from_the_store_without_torch(small_store: Path, tmp_path: Path) -> None:
    before = stored(small_store)
    code = (
        "import sys; from m3i.cli.main import run_command; code = run_command(sys.argv[1:]);"
        "print('HEAVY', sorted({'torch', 'transformers', 'peft', 'trl', 'llama_cpp'} & set(sys.modules)));"
        "sys.exit(code)"
    )
    words = command(small_store, out=tmp_path / "run")[3:]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "HEAVY []" in done.stdout
    assert "made" not in done.stderr
    assert stored(small_store) == before


@pytest.mark.slow
def test_an_arm_pays_only_for_what_depends_on_its_layers(small_store: Path, tmp_path: Path) -> None:
    before = stored(small_store)
    run(small_store, "-m", "selector=attribution,random", "seed=0,1", out=tmp_path / "sweep")
    after = stored(small_store)
    assert {stage: after[stage] - before[stage] for stage in after if after[stage] != before[stage]} == {
        "select": 1,  # attribution's was there
        "train": 3,  # 2 layer sets x 2 training seeds, one of them there
        "export": 3,
        "answer": 3,  # tuned only: the base's answers are shared
        "judge": 3,
    }
    for stage in SHARED:
        assert after[stage] == 1
    assert len(list((tmp_path / "sweep").glob("*/result.json"))) == 4


@pytest.mark.slow
def test_two_processes_on_one_store_make_each_artifact_once(tmp_path: Path) -> None:
    store = tmp_path / "store"
    outs = [tmp_path / "a", tmp_path / "b"]
    processes = [
        subprocess.Popen(
            command(store, out=out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        for out in outs
    ]
    errors = [p.communicate()[1] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], errors
    assert all(n == 1 for stage, n in stored(store).items() if stage not in ("answer", "observe"))
    made = Counter(line.split()[1] for text in errors for line in text.splitlines() if " s  made " in line)
    assert max(n for stage, n in made.items() if stage not in ("answer", "observe")) == 1, errors
    results = [json.loads((out / "result.json").read_text()) for out in outs]
    assert results[0]["judges"] == results[1]["judges"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_goes_on_where_it_was(tmp_path: Path, how: signal.Signals) -> None:
    store = tmp_path / "store"
    process = subprocess.Popen(
        command(store, out=tmp_path / "run"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell ignores it for us
    )
    while stored(store)["trace"] == 0:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    errors = process.communicate()[1]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; finished stages are in the store" in errors
        assert "Traceback" not in errors
    kept = stored(store)
    done = run(store, out=tmp_path / "again")
    assert kept["trace"] == stored(store)["trace"] == 1
    assert "trace" in [line.split()[1] for line in done.stderr.splitlines() if " stored" in line]
    assert list((store / "tmp").iterdir()) == []


@pytest.mark.slow
def test_the_sham_arm_changes_nothing_and_says_that_it_proves_nothing(small_store: Path, tmp_path: Path) -> None:
    run(small_store, "selector=none", out=tmp_path / "sham")
    result = json.loads((tmp_path / "sham" / "result.json").read_text())
    base = {
        json.loads(p.read_text())["files"].get("base.gguf")
        for p in (small_store / "objects" / "base").glob("*/stage.json")
    }
    files = [json.loads(p.read_text())["files"] for p in (small_store / "objects" / "export").glob("*/stage.json")]
    assert any(base & set(f.values()) for f in files), "no export is byte-identical to the base"
    counts = result["judges"]["verifier"]["counts"]
    assert (counts["base"], counts["tuned"], counts["tie"]) == (0, 0, 10)
    assert result["certificates"]["export"]["vacuous"] is True


@pytest.mark.slow
def test_a_corrupted_artifact_is_made_again_and_said(small_store: Path, tmp_path: Path) -> None:
    file = next((small_store / "objects" / "pairs").glob("*/pairs.jsonl"))
    file.write_bytes(file.read_bytes()[:-20])
    done = run(small_store, out=tmp_path / "run")
    assert "stored pairs.jsonl is corrupted (its hash differs); made again" in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_line_and_nothing_is_lost(small_store: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    words = " ".join(f"'{w}'" for w in command(small, "seed=9", out=tmp_path / "run"))
    script = (
        f"mount -t tmpfs -o size=12m tmpfs {small} && cp -r {small_store}/objects {small}/ 2>/dev/null;"
        f"dd if=/dev/zero of={small}/fill bs=1M 2>/dev/null; {words}; code=$?;"
        f"rm {small}/fill; ls {small}/objects; exit $code"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    if "mount:" in done.stderr:
        pytest.skip("this machine does not let us mount a tmpfs")
    assert done.returncode == 2
    assert "disk under the store" in done.stderr
    assert "Traceback" not in done.stderr
    assert "problems" in done.stdout


@pytest.mark.slow
def test_own_traces_replace_generation(small_store: Path, tmp_path: Path) -> None:
    traces = next((small_store / "objects" / "trace").glob("*/traces.jsonl")).read_text().splitlines()
    problems = [
        json.loads(line)
        for line in next((small_store / "objects" / "problems").glob("*/train.jsonl")).read_text().splitlines()
    ]
    prompts = {p["id"]: p["prompt"] for p in problems}
    rows = [{"prompt": prompts[t["problem_id"]], "completion": t["text"]} for t in map(json.loads, traces)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(small_store, f"trace.file={file}", out=tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["traces"]["n"] == len(rows)
    file.write_text(file.read_text() + "{not json\n")
    broken = run(small_store, f"trace.file={file}", out=tmp_path / "run2", check=False)
    assert broken.returncode == 2
    assert f"{file}" in broken.stderr
    assert f"line {len(rows) + 1}" in broken.stderr or f":{len(rows) + 1}" in broken.stderr
