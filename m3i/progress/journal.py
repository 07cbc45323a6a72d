"""A run's progress as a file that anyone can follow: progress.jsonl in the run's folder, one line per event.

    {"event": "begin", "at": 1790000000.0, "host": "node7", "pid": 4242}
    {"event": "stages", "at": ..., "n_stages": 19}
    {"event": "start", "at": ..., "stage": "train", "label": ""}
    {"event": "stage", "at": ..., "stage": "train", "label": "", "hit": false, "time_s": 12.1, "made_in_s": 12.1,
     "made": "63,360 parameters in 15 tensors"}
    {"event": "arm", "at": ..., "arm": {...}}
    {"event": "end", "at": ..., "state": "done", "error": "", "cost_usd": 0.0}

A later attempt appends to the same file, starting with another `begin`. A file works across processes, hosts and
launchers alike.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3i.store.store import StageRecord

NAME = "progress.jsonl"
ENDS = ("done", "failed", "interrupted")
COUNTED = ("at", "n_stages", "pid", "cost_usd", "time_s", "made_in_s")
TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("event", "host", "stage", "label", "state", "error"), (str,)),
    **dict.fromkeys(("at", "time_s", "made_in_s"), (int, float)),
    **dict.fromkeys(("pid", "n_stages"), (int,)),
    "cost_usd": (int, float, type(None)),
    "hit": (bool,),
    "arm": (dict,),
}
"""Fields of events and their types; an event with a field of another type is ignored."""


class Journal:
    """Writes one run's progress. Each event is one appended line, so a reader never sees half of two."""

    def __init__(self, folder: Path) -> None:
        """Writes into `folder`, which is created with the first event."""
        self.path = folder / NAME

    def begin(self) -> None:
        """Records that the run starts, or starts again."""
        self._write("begin", host=socket.gethostname(), pid=os.getpid())

    def stages(self, n_stages: int) -> None:
        """Records that the run passed all checks, and how many stages are ahead."""
        self._write("stages", n_stages=n_stages)

    def start(self, stage: str, label: str) -> None:
        """Records that a stage starts."""
        self._write("start", stage=stage, label=label)

    def stage(self, record: StageRecord, made: str) -> None:
        """Records that a stage is done, or was in the store."""
        self._write(
            "stage",
            stage=record.stage,
            label=record.label,
            hit=record.hit,
            time_s=record.time_s,
            made_in_s=record.made_in_s,
            made=made,
        )

    def arm(self, section: Mapping[str, Any]) -> None:
        """Records what the arm trains (the section `arm` of result.json)."""
        self._write("arm", arm=dict(section))

    def end(self, state: str, *, error: str = "", cost_usd: float | None = None) -> None:
        """Records that the run ends: `done`, `failed` or `interrupted`."""
        self._write("end", state=state, error=error, cost_usd=cost_usd)

    def _write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "at": time.time(), **fields}, ensure_ascii=True) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="ascii") as file:
            file.write(line)


@dataclass
class Progress:
    """The latest attempt of a run, as read from its journal."""

    state: str = "waiting"
    """waiting, running, done, failed or interrupted."""
    attempt: int = 0
    """Number of the attempt, from 1; 0 before the first."""
    began_at: float | None = None
    """Unix time by the clock of its machine; None before the first event."""
    ended_at: float | None = None
    n_stages: int = 0
    current: str = ""
    """The stage that is running."""
    n_made: int = 0
    n_hit: int = 0
    arm: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    cost_usd: float | None = None
    host: str = ""
    pid: int = 0

    @property
    def n_done(self) -> int:
        """The number of finished stages."""
        return self.n_made + self.n_hit


def read_progress(folder: Path) -> Progress:
    """Returns the progress of the run in `folder`; state `waiting` if it has none. Invalid lines are skipped."""
    progress = Progress()
    try:
        lines = (folder / NAME).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return progress
    for line in lines:
        try:
            event = json.loads(line)
            progress = _after(progress, event)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return progress


def _typed(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the event. Raises TypeError if a field has another type than a run writes, ValueError if out of range."""
    for name, value in event.items():
        types = TYPES.get(name)
        if types is not None and type(value) not in types:  # True does not count as a number
            raise TypeError(name)
        if name in COUNTED and value is not None and not 0 <= value < 1e12:  # fails for NaN too
            raise ValueError(name)
    return event


def _after(progress: Progress, event: Mapping[str, Any]) -> Progress:
    name = _typed(event)["event"]
    if name == "begin":
        return Progress(
            state="running", attempt=progress.attempt + 1, began_at=event["at"], host=event["host"], pid=event["pid"]
        )
    if name == "stages":
        progress.n_stages = event["n_stages"]
    elif name == "start":
        progress.current = f"{event['stage']} {event['label']}".strip()
    elif name == "stage":
        progress.n_hit += bool(event["hit"])
        progress.n_made += not event["hit"]
        progress.current = ""
    elif name == "arm":
        progress.arm = event["arm"]
    elif name == "end":
        if event["state"] not in ENDS:
            raise ValueError(event["state"])
        progress.cost_usd, progress.ended_at = event["cost_usd"], event["at"]
        progress.state, progress.error = event["state"], event["error"]
    return progress


class Attempts:
    """The runs below a folder as one command sees them, without the attempts of earlier commands.

    Attempts are compared by number, since the clocks of machines differ.
    """

    def __init__(self, folder: Path) -> None:
        """Notes the attempts that exist now."""
        self.folder = folder
        self._earlier = {file.parent: read_progress(file.parent).attempt for file in folder.glob(f"*/*/{NAME}")}

    def progress(self, run: str) -> Progress:
        """Returns the progress of a run below the folder, such as `sham/seed-0`; `waiting` until a new attempt."""
        found = read_progress(self.folder / run)
        return found if found.attempt > self._earlier.get(self.folder / run, 0) else Progress()
