"""A live table of a sweep's jobs, read from their progress files, so that it shows workers on any machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from m3i.progress.journal import Attempts, Progress
from m3i.sweep.plan import PlannedJob
from m3i.wording.formats import visible

REFRESH_S = 1.0
MOST_ROWS = 24
"""Largest number of arms shown at once; waiting ones are counted below."""
COLOURS = {"done": "green", "failed": "red", "running": "yellow", "interrupted": "red", "waiting": "dim"}


class Overview:
    """Shows a running sweep: as a live table on a terminal, elsewhere as one line per job that ends."""

    def __init__(self, folder: Path, jobs: Sequence[PlannedJob], *, console: Console | None = None) -> None:
        """Follows `jobs` in `folder`; prints to standard error by default, to keep standard output for results."""
        self.folder, self.jobs = folder, list(jobs)
        self.console = console or Console(stderr=True, highlight=False)
        self.began_at = time.time()
        self._attempts = Attempts(folder)
        self._told: set[str] = set()
        self._stop = threading.Event()
        self._live = (
            Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        )
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Overview:
        self.console.print(f"Sweep of {len(self.jobs)} jobs in {escape(str(self.folder))}", soft_wrap=True)
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._live:
            self._live.stop()
        self._tell(self._read())

    def note(self, text: str) -> None:
        """Prints a remark that stays on the screen."""
        self.console.print(f"[dim]{escape(text)}[/]", soft_wrap=True)

    def _follow(self) -> None:
        while not self._stop.wait(REFRESH_S):
            progress = self._read()
            self._tell(progress)
            if self._live:
                self._live.update(self.table(progress), refresh=True)

    def _read(self) -> dict[PlannedJob, Progress]:
        """Reads the progress of every job; attempts of an earlier command count as waiting."""
        return {job: self._attempts.progress(job.folder) for job in list(self.jobs)}

    def _tell(self, progress: dict[PlannedJob, Progress]) -> None:
        """Prints one line per job that has ended since the last call."""
        for job, p in progress.items():
            if p.state not in ("done", "failed", "interrupted") or job.folder in self._told:
                continue
            self._told.add(job.folder)
            took = max(0.0, (p.ended_at or 0.0) - (p.began_at or 0.0))  # a clock may be set back
            words = (
                f"{p.n_made} made, {p.n_hit} stored" if p.state == "done" else escape(str(visible(p.error or p.state)))
            )
            self.console.print(
                f"[dim]{len(self._told):>3}/{len(self.jobs)}[/] [bold]{escape(job.arm):<14}[/] seed {job.seed:<4} "
                f"[{COLOURS[p.state]}]{p.state:<8}[/] {took:>7.1f} s  {words}"
                + ("" if self._live else f"   [dim]{escape(self.outlook(progress))}[/]"),
                soft_wrap=True,
            )

    def table(self, progress: dict[PlannedJob, Progress]) -> Group:
        """Returns the table of arms: state of each seed, stages, store hits, current stage, time."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("arm", "seeds", "stages", "stored", "now", "time"):
            table.add_column(column)
        arms = list(dict.fromkeys(job.arm for job in progress))
        shown = [a for a in arms if any(p.state == "running" for j, p in progress.items() if j.arm == a)][:MOST_ROWS]
        for arm in shown:
            own = {job: p for job, p in progress.items() if job.arm == arm}
            running = [p for p in own.values() if p.state == "running"]
            table.add_row(
                escape(arm),
                Text.assemble(*[(f"{job.seed} ", COLOURS[p.state]) for job, p in own.items()]),
                "  ".join(f"{p.n_done}/{p.n_stages}" for p in running),
                "  ".join(str(p.n_hit) for p in running),
                escape(", ".join(p.current for p in running if p.current)),
                "  ".join(f"{max(0.0, time.time() - (p.began_at or 0)):.0f} s" for p in running),
            )
        return Group(table, Text(self.outlook(progress), style="dim"))

    def outlook(self, progress: dict[PlannedJob, Progress]) -> str:
        """Summarises jobs done, running and failed, store hits, and time and money spent and left."""
        states = [p.state for p in progress.values()]
        ended = [p for p in progress.values() if p.state == "done"]
        hits, made = sum(p.n_hit for p in progress.values()), sum(p.n_made for p in progress.values())
        words = [f"{len(ended)} of {len(states)} done", f"{states.count('running')} running"]
        if states.count("failed"):
            words.append(f"{states.count('failed')} failed")
        words.append(f"{hits} stages stored, {made} made")
        left_s = time_left_s(progress, now=time.time())
        if left_s is not None:
            words.append(f"{time.time() - self.began_at:.0f} s so far, about {left_s:.0f} s left")
        paid = [p.cost_usd for p in progress.values() if p.cost_usd is not None]
        if paid:
            each = [p.cost_usd for p in ended[1:] if p.cost_usd is not None]  # the first pays for the observers too
            left = sum(each) / len(each) * (states.count("waiting") + states.count("running")) if each else None
            words.append(f"${sum(paid):.2f} paid" + ("" if left is None else f", about ${left:.2f} left"))
        return "; ".join(words)


def time_left_s(progress: dict[PlannedJob, Progress], *, now: float) -> float | None:
    """Estimates the seconds until all jobs have ended from those that have; None before two have.

    The work left is the mean time of a job times the number of jobs not ended, less the time that running jobs have
    already spent; it is divided by the number of running jobs. The mean leaves out the first job, which makes all
    shared stages, and shams, which train nothing.
    """
    times = sorted(
        (p.began_at, max(0.0, p.ended_at - p.began_at))
        for job, p in progress.items()
        if p.state == "done" and p.began_at is not None and p.ended_at is not None and job.arm != "sham"
    )
    if len(times) < 2:
        return None
    mean_s = sum(took for _, took in times[1:]) / (len(times) - 1)
    running = [max(0.0, now - p.began_at) for p in progress.values() if p.state == "running" and p.began_at is not None]
    n_left = sum(p.state in ("waiting", "running") for p in progress.values())
    work_s = n_left * mean_s - sum(min(spent, mean_s) for spent in running)
    return max(0.0, work_s) / max(1, len(running))
