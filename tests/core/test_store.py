"""The store: hits, misses that say why, corruption, full disks, several processes, several machines."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from m3i.artifacts import LayerSelection, ReferenceLogprobs
from m3i.config.settings import LedgerSettings
from m3i.errors import ConfigError, StoreError
from m3i.ledger import Ledger
from m3i.store import shared_folder
from m3i.store.shared_folder import network_type
from m3i.store.store import Recipe, Store


def recipe(**settings: object) -> Recipe:
    return Recipe(stage="select", component={"name": "manual", "options": dict(settings)})


def selection(*layers: int) -> LayerSelection:
    return LayerSelection(layers=layers, candidates=(0, 1, 2, 3), reason="test")


def test_second_request_is_answered_from_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made, first = store.get_or_make(LayerSelection, recipe(k=2), lambda folder: selection(1, 2))
    again, second = store.get_or_make(LayerSelection, recipe(k=2), lambda folder: pytest.fail("made twice"))
    assert (first.hit, first.why, second.hit) == (False, "first time", True)
    assert made.layers == again.layers == (1, 2)
    assert made.id == again.id == recipe(k=2).key


def test_a_miss_says_what_changed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_make(LayerSelection, recipe(k=2, seed=0), lambda folder: selection(1, 2))
    _, record = store.get_or_make(LayerSelection, recipe(k=3, seed=0), lambda folder: selection(1, 2, 3))
    assert record.why == "k: 2 → 3"


def test_every_part_of_a_recipe_is_in_the_key() -> None:
    plain = Recipe(stage="s", component={"name": "a"}, settings={"x": 1}, inputs={"i": "1"}, libraries={"torch": "2"})
    others = [
        Recipe(stage="t", component={"name": "a"}, settings={"x": 1}, inputs={"i": "1"}, libraries={"torch": "2"}),
        Recipe(stage="s", component={"name": "b"}, settings={"x": 1}, inputs={"i": "1"}, libraries={"torch": "2"}),
        Recipe(stage="s", component={"name": "a"}, settings={"x": 2}, inputs={"i": "1"}, libraries={"torch": "2"}),
        Recipe(stage="s", component={"name": "a"}, settings={"x": 1}, inputs={"i": "2"}, libraries={"torch": "2"}),
        Recipe(stage="s", component={"name": "a"}, settings={"x": 1}, inputs={"i": "1"}, libraries={"torch": "3"}),
    ]
    assert len({plain.key, *(r.key for r in others)}) == 6
    relabelled = Recipe(
        stage="s",
        label="shown",
        component={"name": "a"},
        settings={"x": 1},
        inputs={"i": "1"},
        libraries={"torch": "2"},
    )
    assert relabelled.key == plain.key


def test_arrays_round_trip_exactly_and_nan_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    values = np.random.default_rng(0).normal(size=(7,)).astype(np.float32)
    want = Recipe(stage="reference")
    got, _ = store.get_or_make(
        ReferenceLogprobs, want, lambda folder: ReferenceLogprobs(chosen_P=values, rejected_P=-values)
    )
    assert np.array_equal(got.chosen_P, values)
    assert got.chosen_P.dtype == np.float32


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "stage"])
def test_a_damaged_artifact_is_found_by_hash_made_again_and_said(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    made, _ = store.get_or_make(LayerSelection, recipe(k=2), lambda folder: selection(1, 2))
    file = made.folder / ("stage.json" if damage == "stage" else "header.json")
    if damage == "flip":
        file.write_text(file.read_text().replace("[\n  1,", "[\n  0,"))
        assert "0," in file.read_text()
    elif damage == "truncate" or damage == "stage":
        file.write_bytes(file.read_bytes()[:10])
    else:
        file.unlink()
    again, record = store.get_or_make(LayerSelection, recipe(k=2), lambda folder: selection(1, 2))
    assert not record.hit
    assert "made again" in record.why
    assert again.layers == (1, 2)
    _, third = store.get_or_make(LayerSelection, recipe(k=2), lambda folder: pytest.fail("made twice"))
    assert third.hit


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom"), OSError(errno.ENOSPC, "full")])
def test_a_stage_that_fails_leaves_nothing_and_loses_nothing(tmp_path: Path, error: BaseException) -> None:
    store = Store(tmp_path)
    store.get_or_make(LayerSelection, recipe(k=1), lambda folder: selection(1))

    def fail(folder: Path) -> LayerSelection:
        (folder / "half.bin").write_bytes(b"x" * 100)
        raise error

    expected = StoreError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        store.get_or_make(LayerSelection, recipe(k=2), fail)
    assert list((tmp_path / "tmp").iterdir()) == []
    _, record = store.get_or_make(LayerSelection, recipe(k=1), lambda folder: pytest.fail("lost"))
    assert record.hit


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    def fail(folder: Path) -> LayerSelection:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"disk under the store .* is full; .*store\.root="):
        Store(tmp_path).get_or_make(LayerSelection, recipe(k=2), fail)


def test_a_store_on_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot open the store .*store\.root="):
        Store(tmp_path / "taken")


def test_a_store_where_no_folder_can_be_is_one_clear_line() -> None:
    with pytest.raises(StoreError, match=r"cannot open the store /proc/nowhere: .*store\.root="):
        Store(Path("/proc/nowhere"))


def _make_slowly(root: Path, log: Path) -> None:
    def make(folder: Path) -> LayerSelection:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        return selection(1, 2)

    Store(root).get_or_make(LayerSelection, recipe(k=2), make)


def test_processes_that_want_the_same_make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    processes = [context.Process(target=_make_slowly, args=(tmp_path / "store", log)) for _ in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0] * 5
    assert len(log.read_text().splitlines()) == 1


def test_a_killed_process_leaves_a_usable_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    process = context.Process(target=_make_slowly, args=(tmp_path / "store", log))
    process.start()
    while not log.exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    _make_slowly(tmp_path / "store", log)
    assert len(log.read_text().splitlines()) == 2
    stage = next((tmp_path / "store" / "objects").rglob("stage.json"))
    assert json.loads(stage.read_text())["kind"] == "selection"


# -- several machines -------------------------------------------------------------------------
#
# store_process.py is one process that wants one artifact. `unshare` gives it a host name, process ids and mounts of its
# own, as a container does, and another boot id where it shall be another machine. bindfs mounts one folder twice: two
# mounts share no lock unless it forwards them, and remember for a while that a name was free, as network mounts do.

PROCESS = Path(__file__).with_name("store_process.py")
CONTAINER = ("unshare", "--user", "--map-root-user", "--mount", "--uts", "--pid", "--fork", "--kill-child")


def process(
    root: Path, log: Path, seconds: float, *, boot_id: str = "", container: bool = False, had: int = 0
) -> subprocess.Popen:
    """A process that wants the artifact, begun; in a container that has `had` so many processes before."""
    command = [sys.executable, str(PROCESS), str(root), str(log), str(seconds)]
    if container or boot_id:
        boot = log.with_name(f"boot-{boot_id}")
        boot.write_text(boot_id)
        mount = f"mount --bind '{boot}' /proc/sys/kernel/random/boot_id && " if boot_id else ""
        others = "true; " if not had else f"for _ in $(seq {had}); do /bin/true; done; "
        command = [*CONTAINER, "sh", "-c", f'{mount}hostname node; {others}"$@"', "sh", *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*processes: subprocess.Popen) -> list[dict]:
    """The record that each printed."""
    answers = [(p, *p.communicate(timeout=60)) for p in processes]
    assert [(p.returncode, errors) for p, _, errors in answers] == [(0, "")] * len(processes)
    return [json.loads(words) for _, words, _ in answers]


def made(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_until_made(log: Path, n: int) -> None:
    while made(log) < n:
        time.sleep(0.02)


def unfinished(root: Path) -> list[Path]:
    return [path for path in (root / "tmp").iterdir() if not path.name.startswith("probe-")]


@pytest.fixture
def containers() -> None:
    """Skips where this user may not make namespaces."""
    probe = subprocess.run([*CONTAINER, "hostname", "node"], capture_output=True) if shutil.which("unshare") else None
    if probe is None or probe.returncode:
        pytest.skip("this system lets us make no user namespaces (unshare)")


def test_work_left_by_a_killed_process_is_removed_and_that_of_a_running_one_is_not(tmp_path: Path) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    running = process(root, log, 60)
    wait_until_made(log, 1)
    Store(root)
    assert len(unfinished(root)) == 1
    running.kill()
    running.communicate()
    assert len(unfinished(root)) == 1
    Store(root)
    assert unfinished(root) == []


@pytest.mark.slow
def test_containers_with_one_host_name_do_not_take_each_others_work_for_dead(tmp_path: Path, containers: None) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    first = process(root, log, 3, container=True, had=40)  # its number is nobody's in the other container
    wait_until_made(log, 1)
    second = process(root, log, 0, container=True)  # opens the store while the first one makes it
    records = finish(first, second)
    assert [(r["hit"], r["why"]) for r in records] == [
        (False, "first time"),
        (True, "made by another process meanwhile"),
    ]
    assert (made(log), unfinished(root)) == (1, [])


@pytest.mark.slow
def test_another_machine_takes_over_when_the_holder_of_the_lock_is_killed(tmp_path: Path, containers: None) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    killed = process(root, log, 60, boot_id="one")
    wait_until_made(log, 1)
    waiting = process(root, log, 0, boot_id="two")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1.5)
    assert made(log) == 1
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (record,) = finish(waiting)
    assert (record["hit"], made(log)) == (False, 2)
    assert len(unfinished(root)) == 1  # nobody can say for sure that another machine's process is gone


@pytest.mark.parametrize("locked", [True, False])
def test_work_of_another_machine_is_given_up_after_a_day_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    store = Store(tmp_path)
    left = tmp_path / "tmp" / f"{recipe().key}-0123456789abcdef-1"
    (left / "inner").mkdir(parents=True)
    os.utime(left, (0, 0))  # a copied file keeps its old time: that says nothing
    lock = tmp_path / "locks" / f"{recipe().key}.lock"
    lock.touch()
    Store(tmp_path)
    assert left.exists()
    monkeypatch.setattr(shared_folder, "IDLE_S", 0.0)
    with lock.open() as file:
        if locked:
            fcntl.flock(file, fcntl.LOCK_EX)
        Store(tmp_path)
    assert left.exists() == locked
    _, record = store.get_or_make(LayerSelection, recipe(), lambda folder: selection(1, 2))
    assert not record.hit


@pytest.mark.slow
def test_where_locks_do_not_reach_the_first_complete_artifact_stays(tmp_path: Path) -> None:
    root, other, log = tmp_path / "store", tmp_path / "other", tmp_path / "log"
    Store(root)
    (other / "locks").mkdir(parents=True)
    for name in ("objects", "tmp"):  # one folder, and locks that each machine has for itself
        (other / name).symlink_to(root / name)
    slow = process(root, log, 2)
    wait_until_made(log, 1)
    quick = process(other, log, 0)
    records = finish(slow, quick)
    assert [r["hit"] for r in records] == [False, False]
    assert records[0]["made_in_s"] == records[1]["made_in_s"] < 1  # both have the quicker one's
    assert (made(log), unfinished(root)) == (2, [])
    (record,) = finish(process(root, log, 0))
    assert record["hit"]


@pytest.fixture
def mounts(tmp_path: Path):
    """Mounts of one folder that remember for 3 s that a name was free: `mounts(forward_locks)`."""
    if os.geteuid() != 0 or not shutil.which("bindfs") or not Path("/dev/fuse").exists():
        pytest.skip("needs root, bindfs and FUSE")
    made: list[Path] = []

    def mount(*options: str) -> tuple[Path, Path]:
        (tmp_path / "real").mkdir()
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            remembering = "negative_timeout=3,entry_timeout=3,attr_timeout=3"
            folders = (tmp_path / "real", tmp_path / name)
            subprocess.run(["bindfs", "--multithreaded", *options, "-o", remembering, *folders], check=True)
            made.append(tmp_path / name)
        return made[0] / "store", made[1] / "store"

    yield mount
    for point in made:
        subprocess.run(["umount", point], check=True)


@pytest.mark.slow
def test_a_mount_that_remembers_a_free_name_waits_and_makes_nothing_twice(tmp_path: Path, mounts) -> None:
    one, two = mounts("--enable-lock-forwarding")
    log = tmp_path / "log"
    first = process(one, log, 2)
    wait_until_made(log, 1)
    second = process(two, log, 0)
    records = finish(first, second)
    assert [r["hit"] for r in records] == [False, True]
    assert made(log) == 1


@pytest.mark.slow
def test_two_mounts_of_one_machine_without_common_locks_lose_nothing(tmp_path: Path, mounts) -> None:
    one, two = mounts()
    log = tmp_path / "log"
    first = process(one, log, 2)
    wait_until_made(log, 1)
    second = process(two, log, 0)
    assert [r["hit"] for r in finish(first, second)] == [False, False]
    assert (made(log), unfinished(tmp_path / "real" / "store")) == (2, [])


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_lock(*arguments: object) -> None:
        raise OSError(number, "no locks here")

    store = Store(tmp_path)
    monkeypatch.setattr(fcntl, "flock", no_lock)  # no file system here is without
    # filelock warns, and would go on with a file that outlives a killed process
    with warnings.catch_warnings(record=True), pytest.raises(StoreError, match=r"no file locks .*store\.root="):
        store.get_or_make(LayerSelection, recipe(), lambda folder: selection(1))
    assert list((tmp_path / "objects").iterdir()) == []


MOUNTS = """22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
41 40 0:51 / /home/me/local rw - xfs /dev/vdb rw
42 27 0:52 / /mnt/a\\040b rw - fuse.sshfs me@host: rw
43 27 0:53 / /mnt/bound rw - fuse.bindfs /x rw
"""


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/home/me/.cache/m3i/ledger.sqlite", "nfs4"),
        ("/home", "nfs4"),
        ("/homeless/x", ""),
        ("/home/me/local/x", ""),
        ("/mnt/a b/x", "fuse.sshfs"),
        ("/mnt/bound/x", ""),
        ("/var/x", ""),
    ],
)
def test_network_file_systems_are_told_by_the_mount_that_holds_the_place(place: str, expected: str) -> None:
    assert network_type(Path(place), MOUNTS) == expected


def test_the_ledger_lies_on_a_network_file_system_only_where_it_is_asked_to(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("bindfs") or not Path("/dev/fuse").exists():
        pytest.skip("needs root, bindfs and FUSE")
    real, shared = tmp_path / "real", tmp_path / "shared"
    for folder in (real, shared):
        folder.mkdir()
    subprocess.run(["bindfs", "-o", "subtype=sshfs", real, shared], check=True)
    try:
        assert network_type(shared / "ledger.sqlite") == "fuse.sshfs"
        with pytest.raises(ConfigError, match=r"network file system \(fuse\.sshfs\).*ledger\.path="):
            Ledger(LedgerSettings(), default_path=shared / "ledger.sqlite").known([])
        assert list(shared.iterdir()) == []
        asked = Ledger(LedgerSettings(path=str(shared / "ledger.sqlite")), default_path=real / "other")
        assert asked.known([]) == set()
        local = Ledger(LedgerSettings(), default_path=real / "ledger.sqlite")
        assert local.known([]) == set()
    finally:
        subprocess.run(["umount", shared], check=True)
