"""A target within one process: described at once, loaded on first use, shared by all runs with the same target."""

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
    """A target within one run. Its facts are read at once; its weights are loaded once, on first use."""

    target: Target
    info: TargetInfo = field(init=False)

    def __post_init__(self) -> None:
        """Reads the target's facts. Raises InputError if it cannot be used."""
        self.info = self.target.describe()

    @property
    def loaded(self) -> LoadedTarget:
        """The loaded model. Each process keeps one model, which the arms of a sweep share."""
        key = f"{type(self.target).__qualname__} {self.identity()}"
        if key not in _LOADED:
            _LOADED.clear()
            _LOADED[key] = self.target.load()
        return _LOADED[key]

    def identity(self) -> dict[str, Any]:
        """Returns, as JSON values, what makes two sessions the same target; it is part of the store's keys."""
        return {
            "revision": self.info.revision,
            "device": self.info.device,
            "dtype": self.info.dtype,
            "options": resolved_fields(self.target),
        }
