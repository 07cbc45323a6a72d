"""The artifact store: content-addressed, shared by runs and processes, safe to kill at any moment.

    <root>/objects/<stage>/<key>/         one artifact: its files, and stage.json written last
    <root>/locks/<key>.lock               held while one process makes an artifact
    <root>/tmp/<key>-<domain>-<id>/       an unfinished artifact; renamed into objects/ when complete

The key is the hash of a recipe: stage, component and every resolved option, versions, source hashes, and the ids of the
inputs. Nothing is ever changed in place. Several machines may share the folder: locks keep them from doing the same
work twice, and where locks do not reach other machines, the first complete artifact stays (docs/store.md).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from m3i.artifacts import Artifact
from m3i.errors import StoreError
from m3i.store import codec
from m3i.store.files import file_hash
from m3i.store.shared_folder import Workplace, held, listed

FORMAT = 1
"""Incremented when the meaning of a stored artifact changes, which turns older artifacts into misses."""
LONGEST_CACHE_S = 75.0
"""How long a file system's cache may hide another machine's artifact."""
PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT)
"""Errors that can occur when an intact file is read."""

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides an artifact's content."""

    stage: str
    label: str = ""
    """Tells several artifacts of one stage apart, e.g. the observer's alias; for display, not in the key."""
    component: dict[str, Any] = field(default_factory=dict)
    """Name, distribution, version, source hash and every option of the stage's component, if it has one."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Core options and hashes of core source that the stage depends on."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Name of the input → id of its artifact."""
    libraries: dict[str, str] = field(default_factory=dict)
    """Distribution → version; `device` → kind."""

    def content(self) -> dict[str, Any]:
        """Returns the hashed part, as JSON values."""
        return {
            "format": FORMAT,
            "stage": self.stage,
            "component": self.component,
            "settings": self.settings,
            "inputs": self.inputs,
            "libraries": self.libraries,
        }

    @property
    def key(self) -> str:
        """The sha256 of the recipe's canonical JSON, cut to 32 hex digits."""
        text = json.dumps(self.content(), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """How one stage of a run got its artifact."""

    stage: str
    label: str
    key: str
    hit: bool
    why: str
    """For a miss, what is new; usually empty for a hit."""
    time_s: float
    """Seconds that this run spent on the stage."""
    made_in_s: float
    """Seconds that it took to make the artifact originally."""
    made_at: str = ""
    """When the artifact was made, in UTC by the clock of the machine that made it, e.g. 2026-11-22T20:16:38Z."""
    peak_memory_bytes: int
    """Peak resident memory of the process while the artifact was made; 0 if it cannot be measured."""


class Store:
    """A folder of artifacts."""

    def __init__(self, root: Path) -> None:
        """Opens or creates the store. Raises StoreError if the folder cannot be written."""
        self.root = root.expanduser().absolute()
        with self._explained("open"):
            for name in ("objects", "locks", "tmp"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._workplace = Workplace(self.root / "tmp", self.root / "locks")
            self._workplace.sweep()

    def get_or_make(
        self,
        cls: type[A],
        recipe: Recipe,
        make: Callable[[Path], A],
        waiting: Callable[[], None] = lambda: None,
    ) -> tuple[A, StageRecord]:
        """Returns the artifact of `recipe`, made by `make(folder)` if it is not stored yet.

        One process makes it while others wait (`waiting()` is called once). A stored artifact whose files do not match
        the recorded hashes is discarded and made again, and the record says so.

        Raises:
            StoreError: The store cannot be written, e.g. the disk is full. Artifacts stored earlier are kept.
        """
        began = time.perf_counter()
        with self._explained("write"):
            found, damage = self._load(cls, recipe)
            if found is not None:
                return found, self._record(recipe, began, hit=True, why="")
            with held(self.root / "locks" / f"{recipe.key}.lock", waiting):
                found, damage = self._load_now(cls, recipe)  # another process may have made it meanwhile
                if found is not None:
                    return found, self._record(recipe, began, hit=True, why="made by another process meanwhile")
                why = damage or self.why_miss(recipe)
                if damage:
                    self._discard(recipe)
                self._make(recipe, make, began)
                found, damage = self._load_now(cls, recipe)
        if found is None:
            raise StoreError(f"{self._place(recipe)}: was just written but cannot be read: {damage}")
        return found, self._record(recipe, began, hit=False, why=why)

    def why_miss(self, recipe: Recipe) -> str:
        """Returns what differs from the nearest stored recipe of the same stage, e.g. `rank: 16 → 32; new pairs`."""
        wanted = _flat(recipe.content())
        best: set[str] | None = None
        had: dict[str, Any] = {}
        for stored in self._recent(recipe.stage):
            if stored.get("component", {}).get("name") != recipe.component.get("name"):
                continue
            other = _flat(stored)
            changed = {name for name in wanted.keys() | other.keys() if other.get(name) != wanted.get(name)}
            if best is None or len(changed) < len(best):
                best, had = changed, other
        if best is None:
            return "first time"
        inputs = sorted(name.removeprefix("inputs.") for name in best if name.startswith("inputs."))
        own = sorted(name for name in best if not name.startswith("inputs."))
        parts = [f"{_short(name)}: {_show(had.get(name))} → {_show(wanted.get(name))}" for name in own[:3]]
        parts += [f"{len(own) - 3} more option{'s' if len(own) > 4 else ''}"] if len(own) > 3 else []
        parts += [f"new {', '.join(inputs)}"] if inputs else []
        return "; ".join(parts)

    def meta(self, recipe: Recipe) -> dict[str, Any]:
        """Returns the stage.json of a stored artifact."""
        loaded: dict[str, Any] = json.loads((self._place(recipe) / "stage.json").read_text(encoding="utf-8"))
        return loaded

    # -- inside -------------------------------------------------------------------------------

    def _place(self, recipe: Recipe) -> Path:
        return self.root / "objects" / recipe.stage / recipe.key

    def _discard(self, recipe: Recipe) -> None:
        """Removes a damaged artifact; for readers it disappears in one step."""
        out = self._workplace.folder(recipe.key)
        try:
            self._place(recipe).rename(out)
        except FileNotFoundError:
            return
        shutil.rmtree(out)

    def _make(self, recipe: Recipe, make: Callable[[Path], Artifact], began: float) -> None:
        tmp = self._workplace.folder(recipe.key)
        tmp.mkdir()
        reset_peak_memory()
        try:
            artifact = make(tmp)
            codec.write(artifact, tmp)
            files = {str(f.relative_to(tmp)): file_hash(f) for f in sorted(tmp.rglob("*")) if f.is_file()}
            meta = {
                "recipe": recipe.content(),
                "kind": artifact.kind,
                "files": files,
                "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "made_in_s": time.perf_counter() - began,
                "peak_memory_bytes": peak_memory_bytes(),
            }
            for name in files:
                _fsync(tmp / name)
            (tmp / "stage.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")
            _fsync(tmp / "stage.json")
            self._publish(tmp, self._place(recipe))
        except BaseException:  # KeyboardInterrupt too: leave no half artifact behind
            shutil.rmtree(tmp, ignore_errors=True)
            raise

    def _publish(self, tmp: Path, place: Path) -> None:
        """Renames a complete artifact into place. If another machine was faster, its artifact stays."""
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            tmp.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(tmp)
        _fsync(place.parent)

    def _load_now(self, cls: type[A], recipe: Recipe) -> tuple[A | None, str]:
        """Loads as `_load`, but if another machine's artifact is still hidden by a cache, waits until it is visible."""
        deadline = time.monotonic() + LONGEST_CACHE_S
        while True:
            there = listed(self.root, "objects", recipe.stage, recipe.key)
            found, damage = self._load(cls, recipe)
            if found is not None or damage or not there or time.monotonic() > deadline:
                return found, damage
            time.sleep(0.5)

    def _load(self, cls: type[A], recipe: Recipe) -> tuple[A | None, str]:
        """Returns the stored artifact, or None and what is wrong with it (empty if there is no artifact)."""
        place = self._place(recipe)
        if not (place / "stage.json").exists():
            return None, "found incomplete; made again" if place.exists() else ""
        try:
            meta = json.loads((place / "stage.json").read_text(encoding="utf-8"))
            for name, expected in meta["files"].items():
                if file_hash(place / name) != expected:
                    return None, f"stored {name} is corrupted (its hash differs); made again"
            return codec.read(cls, place, id=recipe.key, parents=tuple(recipe.inputs.values())), ""
        except (OSError, ValueError, KeyError, TypeError, StoreError) as error:
            if isinstance(error, OSError) and error.errno in PASSING:
                raise
            return None, f"stored artifact is unreadable ({type(error).__name__}); made again"

    def _record(self, recipe: Recipe, began: float, *, hit: bool, why: str) -> StageRecord:
        meta = self.meta(recipe)
        return StageRecord(
            stage=recipe.stage,
            label=recipe.label,
            key=recipe.key,
            hit=hit,
            why=why,
            time_s=time.perf_counter() - began,
            made_in_s=meta["made_in_s"],
            made_at=meta["made_at"],
            peak_memory_bytes=meta["peak_memory_bytes"],
        )

    def _recent(self, stage: str, most: int = 50) -> Iterator[dict[str, Any]]:
        folder = self.root / "objects" / stage
        places = sorted(folder.glob("*/stage.json"), key=lambda p: p.stat().st_mtime, reverse=True)
        for place in places[:most]:
            try:
                yield json.loads(place.read_text(encoding="utf-8"))["recipe"]
            except (OSError, ValueError, KeyError):
                continue

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(
                    f"the disk under the store {self.root} is full; free some space or choose another folder with "
                    f"store.root=/path. Finished stages are kept."
                ) from error
            unusable = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
            if unusable or (what == "open" and error.errno == errno.ENOENT):
                raise StoreError(
                    f"cannot {what} the store {self.root}: {error.strerror}; choose a writable folder with "
                    f"store.root=/path"
                ) from error
            raise


def reset_peak_memory() -> None:
    """Starts a new measurement of peak resident memory, if the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """Returns this process's peak resident memory since `reset_peak_memory`; 0 if unknown."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for name, inner in value.items() for k, v in _flat(inner, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): value}


def _short(name: str) -> str:
    return name.removeprefix("component.options.").removeprefix("component.").removeprefix("settings.")


def _show(value: Any) -> str:
    text = "none" if value is None else str(value)
    is_hash = len(text) in (16, 32, 64) and all(c in "0123456789abcdef" for c in text)
    return text[:8] if is_hash else text if len(text) <= 40 else text[:37] + "..."
