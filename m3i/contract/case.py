"""What a plugin's author states about a component: which values it needs, refuses and accepts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Case:
    """What one component needs, refuses and accepts."""

    needs: dict[str, Any] = field(default_factory=dict)
    """Values for the options without a default."""
    bad: dict[str, list[Any]] = field(default_factory=dict)
    """Option → values that must be refused when the component is created."""
    other: dict[str, Any] = field(default_factory=dict)
    """Option → a second valid value, if none can be derived from the type."""
    together: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Option → other options that its second value needs."""
    fixed: str = ""
    """Options inherited from a shared base class for which this component accepts only the default."""
    derived: str = ""
    """Options that, if empty, are filled in from others, such as a file's hash."""
    free: str = ""
    """Options that accept every value of their type (or refuse some only once a target is known)."""
    draws: dict[str, Any] | None = None
    """Options with which a problem source draws few problems. None: 12 train and 9 held-out problems, by `n_train` and
    `n_held_out` if it has both; `{}` for a source whose file fixes the numbers."""

    def names(self) -> set[str]:
        """Every option that the case mentions."""
        words = f"{self.fixed} {self.derived} {self.free}".split()
        beside = [option for others in self.together.values() for option in others]
        return {*self.needs, *self.bad, *self.other, *self.together, *beside, *words, *(self.draws or {})}
