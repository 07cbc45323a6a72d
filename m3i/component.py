"""What makes a dataclass a component: documented options, and a declared part of the store's key."""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import inspect
import itertools
import textwrap
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from m3i.errors import ConfigError

if TYPE_CHECKING:
    from m3i.artifacts import TargetInfo

RESULT_FREE = "m3i_result_free"


@dataclasses.dataclass(kw_only=True)
class Component:
    """Base class of every component: a dataclass whose fields are its options."""

    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions can change the result; they enter the store's key."""

    reads_with_model: ClassVar[bool] = False
    """Whether a language model reads the target's text here; the text can mislead it, so a judge is shown canaries."""
    uses_ledger: ClassVar[bool] = False
    """Whether its results come from calls that the ledger keeps; a new recording makes them again."""

    def check(self, info: TargetInfo) -> None:
        """Raises ConfigError for a target that this component cannot handle, before anything expensive runs."""


def option(default: Any = dataclasses.MISSING, *, factory: Any = dataclasses.MISSING, result_free: bool = False) -> Any:
    """Returns a dataclass field that is an option.

    Args:
        default: The option's default value.
        factory: Makes the default, for lists and mappings.
        result_free: Whether the value cannot change any result (a worker count, a path for scratch files) and so stays
            out of the store's key. Every such field is listed in docs/reference.md and tested.
    """
    metadata = {RESULT_FREE: result_free}
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def resolved_fields(component: Any) -> dict[str, Any]:
    """Returns every option that can change the result, as JSON values: the options that enter the store's key."""
    return {
        f.name: plain(getattr(component, f.name))
        for f in dataclasses.fields(component)
        if f.init and not f.metadata.get(RESULT_FREE, False)
    }


def plain(value: Any) -> Any:
    """Returns the JSON form of an option's value."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"an option holds a value of type {type(value).__name__}, which has no JSON form")


def require(condition: bool, name: str, got: object, expected: str) -> None:
    """Checks one option in `__post_init__`. Raises ConfigError with the option, its value and what is accepted."""
    if not condition:
        raise ConfigError(f"{name} = {got!r}: expected {expected}")


def field_docs(cls: type[Any]) -> dict[str, str]:
    """Returns each option's docstring (the string beneath it in the source), base classes included."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base is object or not dataclasses.is_dataclass(base):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        body = tree.body[0].body  # type: ignore[attr-defined]
        for node, following in itertools.pairwise(body):
            named = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if named and text and isinstance(following.value.value, str):
                docs[node.target.id] = inspect.cleandoc(following.value.value)
    return docs


@cache
def library_version(distribution: str) -> str:
    """Returns the installed version of a distribution, or `absent`."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
