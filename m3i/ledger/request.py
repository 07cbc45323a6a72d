"""What a provider is asked and what it answers, in no provider's words.

A plugin's client turns a `ModelRequest` into its SDK's call and the answer into a `Reply`, and
every failure into one of the errors below: the ledger decides from the class alone whether to
wait and try again, to stop the run, or to keep the failure as this request's answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, runtime_checkable

from m3i.errors import M3IError

FORMAT = 1
"""Part of every key; raised when the meaning of a field changes."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of a message's text."""

    text: str
    cache: bool = False
    """The prompt up to the end of this block will be asked for again soon: a provider's prompt cache may end here."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn."""

    role: str
    """`user` or `assistant`."""
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        """The blocks joined."""
        return "".join(block.text for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One call, whole: the ledger's key is made of every field but `Block.cache`, which cannot change an answer."""

    provider: str
    """`Provider.name`."""
    model: str
    system: tuple[Block, ...]
    """Instructions, the same for every item of a panel: the stable beginning of the prompt."""
    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None
    """JSON schema of the reply, for the provider's structured output; None for free text."""
    max_tokens: int
    """Most tokens of the reply, thinking included where the provider counts it so."""
    temperature: float | None = None
    """None: not sent, the provider's own default (some models refuse any other)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else the client sends, e.g. `{"effort": "low"}`; JSON values only."""
    replicate: int = 0
    """Which of several independent answers to the same request."""

    def content(self) -> dict[str, Any]:
        """What the key is made of, as JSON values."""
        return {
            "format": FORMAT,
            "provider": self.provider,
            "model": self.model,
            "system": [block.text for block in self.system],
            "messages": [{"role": m.role, "text": [block.text for block in m.blocks]} for m in self.messages],
            "schema": self.schema,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "options": dict(self.options),
            "replicate": self.replicate,
        }

    @property
    def key(self) -> str:
        """sha256 of the canonical JSON of `content`, 32 hex digits."""
        text = json.dumps(self.content(), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Stop(str, Enum):
    """Why a reply ended."""

    END = "end"
    MAX_TOKENS = "max_tokens"
    REFUSAL = "refusal"
    """The model or the provider's filter declined."""
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens as the provider counted them. Input is split: the three parts add up to the prompt."""

    input_tokens: int = 0
    """Neither read from nor written to the provider's cache."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    """Thinking included."""

    def __post_init__(self) -> None:
        """Refuses, with a ValueError, a count below 0: it would pay back into the budget."""
        if min(self.input_tokens, self.cache_read_tokens, self.cache_write_tokens, self.output_tokens) < 0:
            raise ValueError("a count of tokens is below 0")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A provider's answer."""

    text: str
    """The reply's text alone; empty for a refusal without words."""
    stop: Stop
    usage: Usage
    model: str
    """The model that answered, by the provider's word."""
    request_id: str = ""
    """The provider's own id of the call, for its support."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The whole response as JSON values, for the record."""


# -- how a call can fail ----------------------------------------------------------------------


class CallError(M3IError):
    """A call that gave no reply. Messages may hold text of the provider: the ledger redacts them before use."""


@dataclass(eq=False)
class Transient(CallError):
    """May pass: the same request is worth sending again (429, 5xx, no connection, timeout, an unreadable body)."""

    message: str
    status: int | None = None
    """HTTP status; None where none came."""
    retry_after_s: float | None = None
    """The server's wish, already in seconds from now (an HTTP date is taken against the response's own Date)."""
    maybe_billed: bool = False
    """The request may have been worked on: the connection broke or time ran out after it was sent."""

    def __str__(self) -> str:
        return self.message

    @property
    def overloaded(self) -> bool:
        """The server asks for fewer requests."""
        return self.status in (429, 529)


class TooLong(CallError):
    """The request exceeds the model's context: an answer about the request, kept as such; never sent again."""


class AccountError(CallError):
    """401, 403, no credit, wrong region: no request of this run can work. Names the environment variable to look at."""


class RequestError(CallError):
    """400, 404, 422: the model id or an option is not accepted; other requests of the component will fail alike."""


# -- clients ----------------------------------------------------------------------------------


@runtime_checkable
class Provider(Protocol):
    """A client of one provider. Made for one event loop; `aclose` at its end."""

    name: str
    """Enters the ledger's key: `anthropic`, `gemini`, `litellm`."""

    async def send(self, request: ModelRequest, *, timeout_s: float) -> Reply:
        """Sends once, without retries of its own. Raises CallError."""

    async def aclose(self) -> None:
        """Closes connections."""


@runtime_checkable
class LoadedLate(Protocol):
    """A provider whose client library takes seconds to import: those are of no call's time."""

    async def load_client(self) -> None:
        """Imports it and makes the client. Called before each attempt's clock starts. Raises CallError."""


class BatchState(str, Enum):
    """Where a batch stands."""

    WORKING = "working"
    ENDED = "ended"


@runtime_checkable
class BatchProvider(Provider, Protocol):
    """A provider that takes many requests at once, for less money and later."""

    async def submit(self, name: str, requests: Mapping[str, ModelRequest]) -> str:
        """Submits requests under their ids (at most 64 of `[a-zA-Z0-9_-]`); returns the provider's batch id.

        `name` is unique to this batch; `find` recognises it by that after a crash.
        """

    async def find(self, name: str, request_ids: frozenset[str]) -> str | None:
        """The id of the batch submitted under `name`, None where the provider has none.

        A provider that shows no names of batches at work may give one of the same size: it brings none of these ids,
        and the next look for it gives another.
        """

    async def state(self, batch_id: str) -> BatchState:
        """Whether it has ended."""

    async def collect(self, batch_id: str) -> Mapping[str, Reply | CallError]:
        """Every request's outcome, of a batch that has ended; one that expired or was cancelled is Transient."""
