"""What the server needs from a provider's wire format."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

from tests.wire.faults import Fault

if TYPE_CHECKING:
    from tests.wire.server import Seen, WireServer


@dataclass(frozen=True)
class Result:
    """An answer."""

    status: int
    body: Any
    """JSON value; text is sent as it is."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def content(self) -> bytes:
        """The body on the wire."""
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass
class Refusal(Exception):
    """A request that gets an error."""

    status: int
    message: str
    type: str = ""
    """The provider's word for it; empty: the usual one of the status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    invalid: str = ""
    """What the SDK's own request types say against the body."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More of the error's body."""


class Dialect(ABC):
    """One provider."""

    name: ClassVar[str]

    def __init__(self, server: WireServer) -> None:
        self.server = server
        self._ids = count(1)

    def new_id(self, prefix: str) -> str:
        """An id that was not given before."""
        with self.server.lock:
            return f"{prefix}{next(self._ids):024d}"

    @abstractmethod
    def speaks(self, path: str) -> bool:
        """Whether a path is this provider's."""

    @abstractmethod
    def asks(self, method: str, path: str) -> bool:
        """Whether a request asks a model for one answer."""

    @abstractmethod
    def key(self, headers: Mapping[str, str]) -> str:
        """The API key that a request carries."""

    @abstractmethod
    def wrong_key(self, key: str) -> Refusal:
        """The provider's answer to a key that does not exist."""

    @abstractmethod
    def check(self, seen: Seen) -> None:
        """Raises Refusal for an invalid request or an unknown model."""

    @abstractmethod
    def answer(self, seen: Seen, mind: str) -> Result:
        """The answer to a valid request."""

    @abstractmethod
    def scripted(self, fault: Fault, message: str) -> Refusal:
        """A scripted error in the provider's words."""

    @abstractmethod
    def error_body(self, refusal: Refusal) -> Any:
        """An error's JSON."""


def bearer(headers: Mapping[str, str]) -> str:
    """The key in an Authorization header."""
    return headers.get("authorization", "").removeprefix("Bearer ").strip()
