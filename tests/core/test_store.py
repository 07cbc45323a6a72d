"""The store: hits, misses that say why, corruption, full disks, two processes."""

import errno
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from m3i.artifacts import LayerSelection, ReferenceLogprobs
from m3i.errors import StoreError
from m3i.store import Recipe, Store


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


def test_half_made_artifacts_of_dead_processes_are_swept(tmp_path: Path) -> None:
    Store(tmp_path)
    process = multiprocessing.get_context("fork").Process(target=lambda: None)
    process.start()
    process.join()
    dead = tmp_path / "tmp" / f"{os.uname().nodename}-{process.pid}-abc"
    alive = tmp_path / "tmp" / f"{os.uname().nodename}-{os.getpid()}-abc"
    for folder in (dead, alive):
        folder.mkdir()
    Store(tmp_path)
    assert (dead.exists(), alive.exists()) == (False, True)


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
