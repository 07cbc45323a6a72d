"""What every stage of a run shares: the store, the display, the target, and how a stage's recipe is made."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from m3i.artifacts import Artifact
from m3i.component import library_version, plain, resolved_fields
from m3i.config.experiment import Experiment
from m3i.config.registry import Entry, Registry
from m3i.errors import StoreError
from m3i.interfaces import Tick
from m3i.ledger import Ledger
from m3i.models.session import TargetSession
from m3i.progress.display import Display
from m3i.store.source import core_hash
from m3i.store.store import Recipe, StageRecord, Store

A = TypeVar("A", bound=Artifact)


@dataclass
class RunContext:
    """The experiment of one run, and what its stages work with."""

    experiment: Experiment
    registry: Registry
    store: Store
    display: Display
    session: TargetSession
    ledger: Ledger
    records: list[StageRecord] = field(default_factory=list)

    def make(
        self,
        cls: type[A],
        stage: str,
        work: Callable[[Path, Tick], A],
        *,
        label: str = "",
        component: tuple[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
        libraries: tuple[str, ...] = (),
        made: Callable[[A], str] = lambda artifact: "",
    ) -> A:
        """Returns the artifact of one stage, from the store or made by `work(folder, tick)`.

        Args:
            cls: Type of the artifact.
            stage: Name of the stage; the source of its module in m3i/stages and of all that it imports enters the key.
            work: Makes the artifact.
            label: Tells apart several artifacts of one stage, e.g. by a component's alias.
            component: (group, component) where a plugin does the work.
            settings: Core options that change the result.
            inputs: Name → id of each artifact it is made from.
            libraries: Distributions that the core code of this stage uses.
            made: Summarises the artifact in a few words, for the display.
        """
        described = self.describe(*component) if component else {}
        named = {*libraries, *(type(component[1]).libraries if component else ())}
        recipe = Recipe(
            stage=stage,
            label=label,
            component=described,
            settings={
                **{k: plain(v) for k, v in (settings or {}).items()},
                "core_source": core_hash(f"m3i.stages.{stage}"),
            },
            inputs=dict(inputs or {}),
            libraries={name: library_version(name) for name in sorted(named)},
        )
        with self.display.stage(stage, label) as tick:
            artifact, record = self.store.get_or_make(
                cls, recipe, lambda folder: work(folder, tick), waiting=lambda: self.display.note(WAITING)
            )
        self.records.append(record)
        self.display.finished(record, made(artifact))
        return artifact

    def check_room(self) -> None:
        """Refuses a run whose base and tuned GGUF, at the width of the weights, do not fit on the store's disk.

        Raises:
            StoreError: Not enough space; the message names the store, the free space and what the run writes.
        """
        info, own = self.session.info, self.session.info.files.get("gguf")
        file_bytes = Path(own).stat().st_size if own else info.n_parameters * (4 if info.dtype == "float32" else 2)
        needed, free = file_bytes * (1 if own else 2), shutil.disk_usage(self.store.root).free
        if free < needed:
            raise StoreError(
                f"the disk under the store {self.store.root} has {free / 1e9:.1f} GB free, but the model files of this "
                f"run take about {needed / 1e9:.1f} GB; free some space or choose another place with store.root=/path"
            )

    def describe(self, group: str, component: Any) -> dict[str, Any]:
        """Describes a component for a key: name, distribution, version, source and every resolved option."""
        return described(self.registry.entry_of(group, component), component)

    def recording(self, component: Any) -> dict[str, str]:
        """Returns the ledger's recording for the key of a stage whose component uses the ledger; else nothing."""
        return {"recording": self.ledger.recording} if component.uses_ledger else {}

    @property
    def target_id(self) -> str:
        """Identifies the target, and the code that loads it, in the inputs of a stage."""
        settings = {**self.session.identity(), "core_source": core_hash("m3i.models.target")}
        return Recipe(stage="target", component=self.describe("target", self.experiment.target), settings=settings).key


def described(entry: Entry, component: Any) -> dict[str, Any]:
    """Returns what a key holds of a component, given the registry entry that it was made from."""
    return {
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "source": entry.source_hash(),
        "options": resolved_fields(component),
    }


WAITING = "another process is making this; waiting for it"
