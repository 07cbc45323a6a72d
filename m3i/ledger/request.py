"""What a provider is asked and what it answers, in provider-neutral types.

A plugin's client turns a `ModelRequest` into its SDK's call, the answer into a `Reply`, and every failure into one of
the errors below. From the error's class alone the ledger decides whether to wait and retry, to stop the run, or to
record the failure as the answer to this request.
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
"""Part of every key; incremented when the meaning of a field changes."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of a message's text."""

    text: str
    cache: bool = False
    """The prompt up to the end of this block will be sent again soon: a provider's prompt cache may end here."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of the conversation."""

    role: str
    """`user` or `assistant`."""
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        """The text of all blocks, joined."""
        return "".join(block.text for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One complete call. The ledger's key covers every field except `Block.cache`, which cannot change an answer."""

    provider: str
    """`Provider.name`."""
    model: str
    system: tuple[Block, ...]
    """Instructions, the same for every item of a panel, so that all prompts begin alike."""
    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None
    """JSON schema of the reply, for the provider's structured output; None for free text."""
    max_tokens: int
    """Maximum tokens of the reply, including thinking if the provider counts it."""
    temperature: float | None = None
    """Sampling temperature; None sends none, which leaves the provider's default (some models refuse any other)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options that the client sends, e.g. `{"effort": "low"}`; JSON values only."""
    replicate: int = 0
    """Which of several independent answers to the same request."""

    def content(self) -> dict[str, Any]:
        """Returns what the key is a hash of, as JSON values."""
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
        """The first 32 hex digits of the sha256 of the canonical JSON of `content`."""
        text = json.dumps(self.content(), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Stop(str, Enum):
    """Why a reply ended."""

    END = "end"
    MAX_TOKENS = "max_tokens"
    REFUSAL = "refusal"
    """The model or the provider's filter declined to answer."""
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens as the provider counted them. The three input counts add up to the prompt."""

    input_tokens: int = 0
    """Prompt tokens neither read from nor written to the provider's cache."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    """Thinking included."""

    def __post_init__(self) -> None:
        """Raises ValueError for a negative count, which would pay back into the budget."""
        if min(self.input_tokens, self.cache_read_tokens, self.cache_write_tokens, self.output_tokens) < 0:
            raise ValueError("a token count is below 0")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A provider's answer."""

    text: str
    """The reply's text; empty for a refusal without words."""
    stop: Stop
    usage: Usage
    model: str
    """The model that answered, as named by the provider."""
    request_id: str = ""
    """The provider's id of the call, to quote to its support."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The whole response as JSON values, for the record."""


# -- how a call can fail ----------------------------------------------------------------------


class CallError(M3IError):
    """A call that gave no reply. The message may contain the provider's text, which the ledger redacts before use."""


@dataclass(eq=False)
class Transient(CallError):
    """A transient failure, worth retrying: 429, 5xx, no connection, a timeout, an unreadable body."""

    message: str
    status: int | None = None
    """HTTP status; None if there was no response."""
    retry_after_s: float | None = None
    """How long the server asks to wait, in seconds from now (an HTTP date is compared with the response's own Date)."""
    maybe_billed: bool = False
    """The provider may have worked on the request: the connection broke or time ran out after it was sent."""

    def __str__(self) -> str:
        return self.message

    @property
    def overloaded(self) -> bool:
        """Whether the server asks for fewer requests."""
        return self.status in (429, 529)


class TooLong(CallError):
    """The request exceeds the model's context. Recorded as the answer to this request, which is never sent again."""


class AccountError(CallError):
    """401, 403, no credit, wrong region: no request of this run can work. Names the environment variable to check."""


class RequestError(CallError):
    """400, 404, 422: the model id or an option is not accepted; other requests of the component would fail as well."""


# -- clients ----------------------------------------------------------------------------------


@runtime_checkable
class Provider(Protocol):
    """A client of one provider, made for one event loop; call `aclose` when done."""

    name: str
    """Part of the ledger's key: `anthropic`, `gemini`, `litellm`."""

    async def send(self, request: ModelRequest, *, timeout_s: float) -> Reply:
        """Sends once, without retries by the client. Raises CallError."""

    async def aclose(self) -> None:
        """Closes the client's connections."""


@runtime_checkable
class LoadedLate(Protocol):
    """A provider whose client library takes seconds to import, which must not count towards any call's time limit."""

    async def load_client(self) -> None:
        """Imports the library and makes the client. Called before each attempt's clock starts. Raises CallError."""


class BatchState(str, Enum):
    """Whether a batch is still being worked on."""

    WORKING = "working"
    ENDED = "ended"


@runtime_checkable
class BatchProvider(Provider, Protocol):
    """A provider that also takes many requests at once, at a lower price and with a longer wait."""

    async def submit(self, name: str, requests: Mapping[str, ModelRequest]) -> str:
        """Submits requests under their ids (at most 64 characters of `[a-zA-Z0-9_-]`); returns the provider's batch id.

        `name` is unique to this batch; after a crash, `find` looks it up by that name.
        """

    async def find(self, name: str, request_ids: frozenset[str]) -> str | None:
        """Returns the id of the batch submitted under `name`; None if the provider has none.

        A provider that does not show the names of unfinished batches may return another batch of the same size. Its
        results contain none of `request_ids`, and the next call of `find` returns a different one.
        """

    async def state(self, batch_id: str) -> BatchState:
        """Returns whether the batch has ended."""

    async def collect(self, batch_id: str) -> Mapping[str, Reply | CallError]:
        """Returns the outcome of every request in a batch that has ended; Transient if it expired or was cancelled."""
