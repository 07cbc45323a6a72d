"""Whole runs with observers and judges behind a provider's API: real SDKs, a local server, processes that die."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import SMALL as SMALL_RUN
from small_run import SmallRun

from tests.wire import WireServer

pytestmark = pytest.mark.slow

SMALL = (*SMALL_RUN, "trainer.learning_rate=5e-3")  # so that answers change and there is something to judge
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY")
PANEL = ("observer=claude+gemini", "judge=claude+verifier")


def environment(server: WireServer | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in KEYS}
    return {**kept, **(server.environment() if server else {}), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def command(root: Path, *words: str) -> list[str]:
    placed = (f"store.root={root / 'store'}", f"hydra.run.dir={root / 'run'}")
    return [sys.executable, "-m", "m3i", *words, *SMALL, *placed]


def run(root: Path, *words: str, server: WireServer | None = None, check: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run(
        command(root, *words), capture_output=True, text=True, check=False, cwd=root, env=environment(server)
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def m3i(root: Path, *words: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "m3i", *words]
    return subprocess.run(line, capture_output=True, text=True, check=True, cwd=root, env=environment(None))


def result(root: Path) -> dict:
    return json.loads((root / "run" / "result.json").read_text())


@pytest.fixture
def root(small_store: Path) -> Path:
    """A folder whose store holds what needs no provider."""
    return small_store.parent


@pytest.fixture(scope="module")
def published(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two remote observers and a remote judge, and its ledger as a file."""
    root = tmp_path_factory.mktemp("published")
    shutil.copytree(small_run.store, root / "store")
    with WireServer() as server:
        run(root, *PANEL, server=server)
        assert server.repeated == 0
    m3i(root, "ledger", "export", "ledger.jsonl", f"--path={root / 'store' / 'ledger.sqlite'}")
    return root


def test_a_remote_panel_says_where_it_fails_what_it_cost_and_who_judged(published: Path) -> None:
    found = result(published)
    for observer in ("claude", "gemini"):
        calls = found["observers"][observer]["calls"]
        assert calls["n_calls"] > 0
        assert calls["cost_usd"] > 0
        assert calls["cache_read_tokens"] > calls["input_tokens"]  # the rubric is read from the provider's cache
    judge = found["judges"]["claude"]
    assert judge["canaries"]["n"] == 8
    assert judge["order"]["n_judged"] > 0
    rows = found["costs"]["ledger"]["rows"]
    assert {row["provider"] for row in rows} == {"anthropic", "gemini"}
    spent = found["costs"]["observers_usd"] + found["costs"]["judges_usd"]
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(spent)
    assert any(caveat["name"] == "judge_observer_family" for caveat in found["caveats"])


def test_a_second_run_asks_nobody(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published / "store", tmp_path / "store")
    with WireServer() as server:
        done = run(tmp_path, *PANEL, server=server)
        assert server.requests == []
    assert "made" not in done.stderr.replace("made by", "")


def test_a_published_run_repeats_from_its_ledger_without_a_key(published: Path, root: Path) -> None:
    m3i(root, "ledger", "import", str(published / "ledger.jsonl"), f"--path={root / 'store' / 'ledger.sqlite'}")
    run(root, *PANEL, "ledger.mode=replay")
    before, after = result(published), result(root)
    for section in ("observers", "judges", "layers", "accuracy", "examples", "agreement"):
        assert after[section] == before[section], section
    assert after["costs"]["ledger"]["mode"] == "replay"
    assert [row["made"] for row in after["costs"]["ledger"]["rows"]] == [0, 0]


def test_replaying_what_was_never_asked_names_the_missing_answer(root: Path) -> None:
    done = run(root, *PANEL, "ledger.mode=replay", check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "claude-sonnet-5-5" in done.stderr
    assert "replay" in done.stderr


def test_without_a_key_the_run_ends_before_the_target_is_loaded(tmp_path: Path) -> None:
    line = [sys.executable, "-X", "importtime", *command(tmp_path, *PANEL)[1:]]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(None))
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert "ANTHROPIC_API_KEY" in said
    for way_out in ("observer=checker", "observer=llamacpp", "ledger.mode=replay", "m3i cost"):
        assert way_out in said
    imported = {row.rsplit("|", 1)[-1].strip() for row in done.stderr.splitlines() if "import time" in row}
    assert not {"torch", "anthropic", "google.genai", "litellm"} & imported
    assert not (tmp_path / "store" / "objects").exists() or not list((tmp_path / "store" / "objects").iterdir())


def test_an_estimate_needs_no_key_and_asks_nobody(root: Path) -> None:
    with WireServer() as server:
        done = run(root, *PANEL, "ledger.mode=estimate", server=server)
        assert server.requests == []
    assert "observer.claude, observer.gemini: estimated from stored traces." in done.stdout
    words = m3i(root, "cost", *PANEL, *SMALL, f"store.root={root / 'store'}").stdout
    assert words == done.stdout


def test_an_estimate_bounds_what_the_run_then_costs(published: Path, root: Path) -> None:
    from m3i.config.experiment import Experiment
    from m3i.engine.cost import estimate_cost

    found = estimate_cost(Experiment.compose(*PANEL, *SMALL, f"store.root={root / 'store'}"))
    after = estimate_cost(Experiment.compose(*PANEL, *SMALL, f"store.root={published / 'store'}"))
    real = result(published)
    for line, known in zip(found.lines, after.lines, strict=True):
        group, _, alias = line.place.partition(".")
        calls = real[f"{group}s"][alias]["calls"]
        assert calls["n_calls"] <= line.n_calls
        assert calls["cost_usd"] < line.usd_at_most
        if group == "observer":  # made from the very requests
            assert calls["n_calls"] == line.n_calls == known.n_known
            assert known.usd_at_most == 0
            assert 0.3 < line.input_tokens / sum(calls[k] for k in TOKENS) < 3


TOKENS = ("input_tokens", "cache_read_tokens", "cache_write_tokens")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_ended_in_mid_panel_it_goes_on_without_paying_twice(root: Path, how: signal.Signals) -> None:
    with WireServer() as server:
        server.delay_s = 0.15
        process = subprocess.Popen(
            command(root, *PANEL),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=root,
            env=environment(server),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs inherit "ignore"
        )
        deadline = time.monotonic() + 120
        while len(server.paid) < 12 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(how)
        assert process.wait() == (-signal.SIGKILL if how is signal.SIGKILL else 130)
        paid = len(server.paid)
        assert paid >= 12
        server.delay_s = 0.0
        run(root, *PANEL, server=server)
        # an answer that the server had sent but the process had not yet written down is in flight, not paid twice by us
        in_flight = uncertain_calls(root / "store" / "ledger.sqlite")
        assert server.repeated <= in_flight
        assert how is signal.SIGKILL or in_flight == 0  # a termination lets calls in flight finish
    found = result(root)
    assert [found["observers"][o]["n_missing"] for o in ("claude", "gemini")] == [0, 0]


def uncertain_calls(ledger: Path) -> int:
    """Calls that were in flight when their process died, as the ledger books them."""
    with sqlite3.connect(ledger) as connection:
        return int(connection.execute("SELECT count(*) FROM uncertain").fetchone()[0])


def test_a_budget_stops_the_run_before_it_is_overshot_and_a_larger_one_goes_on(root: Path) -> None:
    with WireServer() as server:
        done = run(root, *PANEL, "ledger.budget_usd=0.12", server=server, check=False)
        assert done.returncode == 2
        assert "ledger.budget_usd" in done.stderr
        first = len(server.requests)
        assert first > 0
        run(root, *PANEL, "ledger.budget_usd=5", server=server)
        assert server.repeated == 0
    with sqlite3.connect(root / "store" / "ledger.sqlite") as connection:
        (spent,) = connection.execute(
            "SELECT sum(cost_usd) FROM (SELECT cost_usd FROM answers ORDER BY rowid LIMIT ?)", (first,)
        ).fetchone()
    assert spent <= 0.12
