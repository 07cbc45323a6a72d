"""A target within one process: described at once, loaded on first use, shared by every run that asks for the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from m3i.artifacts import TargetInfo
from m3i.component import resolved_fields
from m3i.interfaces import Target
from m3i.models.target import LoadedTarget

_LOADED: dict[str, LoadedTarget] = {}


@dataclass
class TargetSession:
    """A target within one run: facts at once, weights on first use, loaded once."""

    target: Target
    info: TargetInfo = field(init=False)

    def __post_init__(self) -> None:
        """Reads the target's facts. Raises InputError where it cannot be used."""
        self.info = self.target.describe()

    @property
    def loaded(self) -> LoadedTarget:
        """The model in memory. One model is kept a process: the arms of a sweep share it."""
        key = f"{type(self.target).__qualname__} {self.identity()}"
        if key not in _LOADED:
            _LOADED.clear()
            _LOADED[key] = self.target.load()
        return _LOADED[key]

    def identity(self) -> dict[str, Any]:
        """What makes two sessions the same target, as JSON values: enters the store's key."""
        return {
            "revision": self.info.revision,
            "device": self.info.device,
            "dtype": self.info.dtype,
            "options": resolved_fields(self.target),
        }
