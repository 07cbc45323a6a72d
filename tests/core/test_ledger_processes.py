"""Several real processes on one ledger, some of them killed in the middle of a call."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from ledger_provider import PRICES, ScriptedProvider, ledger_at, request

from m3i.errors import StoreError
from m3i.ledger.prices import estimate, price_of

SCRIPT = Path(__file__).with_name("ledger_process.py")
WORST = estimate(request("x"), price_of("scripted", "test-model", PRICES)).usd_at_most


def start(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def wait_for(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def lines(file):
    return file.read_text().splitlines() if file.exists() else []


def rows(path, query):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_processes_that_ask_the_same_make_each_call_once(tmp_path):
    path, log = tmp_path / "ledger.sqlite", tmp_path / "log"
    for process in [start("panel", path, log, 20, 0.05) for _ in range(3)]:
        end(process)
    calls = Counter(line.split()[1] for line in lines(log))
    assert calls == Counter({str(n): 1 for n in range(20)})
    assert rows(path, "SELECT count(*) FROM answers") == [(20,)]
    assert rows(path, "SELECT count(*) FROM reservations") == [(0,)]


def test_after_kill_9_answered_calls_are_kept_and_those_in_flight_are_booked(tmp_path):
    path, log = tmp_path / "ledger.sqlite", tmp_path / "log"
    killed = start("panel", path, log, 12, 0.2)
    wait_for(lambda: len(lines(log)) >= 6)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    answered = {key for (key,) in rows(path, "SELECT key FROM answers")}
    in_flight = len(lines(log)) - len(answered)
    assert answered
    assert in_flight

    end(start("panel", path, log, 12, 0.01))
    sent = Counter(line.split()[1] for line in lines(log))
    repeated = {text for text, times in sent.items() if times > 1}
    assert len(sent) == 12
    assert not {request(text).key for text in repeated} & answered  # no paid answer is paid for again
    booked = rows(path, "SELECT count(*), total(worst_usd), min(why) FROM uncertain")
    # one between its reservation and its sending may have been caught too
    n, total, why = booked[0]
    assert in_flight <= n <= 4
    assert total == pytest.approx(n * WORST)
    assert why == "process ended"


def test_a_process_goes_on_with_a_call_whose_owner_was_killed_while_it_waited(tmp_path):
    path, log = tmp_path / "ledger.sqlite", tmp_path / "log"
    first = start("panel", path, log, 1, 60)
    wait_for(lambda: lines(log))
    ledger = ledger_at(path)
    provider = ScriptedProvider()

    async def main():
        waiting = asyncio.create_task(ledger.ask(provider, request(0), purpose="test"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert provider.n_sent == 0
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        return await waiting

    answer = asyncio.run(main())
    tally = ledger.tally()
    ledger.close()
    assert not answer.reused
    assert provider.n_sent == 1
    assert tally.uncertain_in_account_usd == pytest.approx(WORST)
    assert tally.uncertain_usd == 0


def test_four_processes_together_never_overshoot_the_budget(tmp_path):
    path, log = tmp_path / "ledger.sqlite", tmp_path / "bill"
    budget = 12.3 * WORST
    processes = [start("spend", path, log, 200, seed, budget) for seed in range(4)]
    assert [end(process) for process in processes] == ["budget\n"] * 4
    billed = sum(float(line) for line in lines(log))
    ((paid,),) = rows(path, "SELECT total(cost_usd) FROM answers")
    assert paid == pytest.approx(billed)
    assert billed <= budget
    assert billed > budget - 2 * WORST  # and it was used


def test_a_killed_batch_is_collected_and_not_submitted_again(tmp_path):
    path, folder = tmp_path / "ledger.sqlite", tmp_path / "provider"
    folder.mkdir()
    killed = start("batch", path, folder, 30, 10**6, 0.02)
    wait_for(lambda: path.exists() and rows_or_none(path) == [("working",)])
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert end(start("batch", path, folder, 30, 2, 0.02)) == "30 0\n"
    assert len(list(folder.iterdir())) == 1
    assert rows(path, "SELECT state FROM batches") == [("collected",)]
    assert rows(path, "SELECT count(*) FROM uncertain") == [(0,)]


def rows_or_none(path):
    try:
        return rows(path, "SELECT state FROM batches")
    except sqlite3.OperationalError:  # not made yet
        return None


def test_a_process_waits_for_a_batch_that_another_one_looks_after(tmp_path):
    path, folder = tmp_path / "ledger.sqlite", tmp_path / "provider"
    folder.mkdir()
    first = start("batch", path, folder, 30, 30, 0.05)
    wait_for(lambda: path.exists() and rows_or_none(path) == [("working",)])
    second = start("batch", path, folder, 30, 1, 0.05)
    assert end(first) == "30 0\n"
    assert end(second) == "30 30\n"
    assert len(list(folder.iterdir())) == 1


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    mounted = mounted and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).returncode
    if not mounted:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_stops_before_the_next_call_and_keeps_what_was_answered(small_disk):
    path = small_disk / "ledger.sqlite"

    async def until_full(ledger, provider):
        for n in range(10**4):
            await ledger.ask(provider, request(f"{n} {'x' * 20000}"), purpose="test")

    provider = ScriptedProvider()
    ledger = ledger_at(path)
    with pytest.raises(StoreError, match="the disk is full"):
        asyncio.run(until_full(ledger, provider))
    with pytest.raises(StoreError, match="the disk is full"):
        asyncio.run(until_full(ledger, provider))  # nothing more is sent that could not be recorded
    answered = rows(path, "SELECT count(*) FROM answers")[0][0]
    assert answered > 3
    assert provider.n_sent - answered <= 1
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    asyncio.run(ledger.ask(provider, request(f"{answered} {'x' * 20000}"), purpose="test"))
    ledger.close()
    unrecorded = provider.n_sent - answered - 1
    assert rows(path, "SELECT count(*) FROM uncertain WHERE why = 'could not be recorded'") == [(unrecorded,)]


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be read or written"):
        asyncio.run(ledger_at(tmp_path / "file" / "ledger.sqlite").ask(ScriptedProvider(), request(1), purpose="test"))
