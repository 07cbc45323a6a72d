"""Progress on the terminal: one line per stage with what it made, the time, and whether the store had it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from m3i.interfaces import Tick, no_tick
from m3i.progress.journal import Journal
from m3i.store.store import StageRecord


class Display:
    """Shows the stages of one run. `Display(quiet=True)` shows nothing but still keeps the journal."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None, journal: Journal | None = None) -> None:
        """Shows on `console`; by default on standard error, which leaves standard output to the results."""
        self.console = console or Console(stderr=True, quiet=quiet, highlight=False)
        self.journal = journal
        self.n_stages = 0
        self.done = 0

    def begin(self, planned: Sequence[str]) -> None:
        """Starts counting how many of the planned stages are done."""
        self.n_stages, self.done = len(planned), 0
        if self.journal:
            self.journal.stages(len(planned))

    @contextmanager
    def stage(self, name: str, label: str) -> Iterator[Tick]:
        """Shows one stage while it runs; yields its tick."""
        title = f"{name} {label}".strip()
        if self.journal:
            self.journal.start(name, label)
        if not self.console.is_terminal:
            yield no_tick
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(escape(f"{self.done + 1:>2}/{self.n_stages} {title}"), total=None)

            def tick(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            yield tick

    def finished(self, record: StageRecord, made: str) -> None:
        """Prints the line of a finished stage."""
        self.done += 1
        if self.journal:
            self.journal.stage(record, made)
        number = f"{self.done:>2}/{self.n_stages}"
        title = f"{record.stage} {record.label}".strip()
        source = "[green]stored[/]" if record.hit else f"[yellow]made[/] [dim]{escape(record.why)}[/]"
        if record.hit and record.why:
            source += f" [dim]{escape(record.why)}[/]"
        self.console.print(
            f"[dim]{number}[/] [bold]{escape(title):<34}[/] {escape(made):<44} {record.time_s:>6.1f} s  {source}",
            soft_wrap=True,
        )

    def arm(self, section: Mapping[str, Any]) -> None:
        """Records in the journal what this arm trains."""
        if self.journal:
            self.journal.arm(section)

    def note(self, text: str) -> None:
        """Prints a remark between stages."""
        self.console.print(f"      [dim]{escape(text)}[/]", soft_wrap=True)
