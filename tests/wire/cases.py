"""What every provider's client is tested with: a request, each fault, and what a client must make of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from m3i.ledger.request import AccountError, Block, CallError, Message, ModelRequest, RequestError, TooLong, Transient
from tests.wire import faults
from tests.wire.faults import Fault

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "findings": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "step": {"type": "integer"},
                    "quote": {"type": "string"},
                    "correction": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["step", "quote", "correction"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["findings"],
    "additionalProperties": False,
}
RUBRIC = "You check the written reasoning of another model, step by step. " * 8
FOUND = '{"findings": [{"step": 1, "quote": "3*4=13", "correction": "3*4=12"}]}'
"""What an honest auditor answers to `request`."""


def request(provider: str, model: str, *, first: str = "3*4=13", **changes: Any) -> ModelRequest:
    """A small audit: rubric, problem, and a trace whose first line is `first`."""
    problem = "==4f1c09aa== PROBLEM\n2+3*4=?\n==4f1c09aa== END PROBLEM\n\n"
    trace = f"==4f1c09aa== TRACE\n1| {first}\n2| 2+13=15\n3| 15\n==4f1c09aa== END TRACE\n"
    fields = {
        "provider": provider,
        "model": model,
        "system": (Block(text=RUBRIC, cache=True),),
        "messages": (Message(role="user", blocks=(Block(text=problem, cache=True), Block(text=trace))),),
        "schema": SCHEMA,
        "max_tokens": 4000,
    }
    return ModelRequest(**{**fields, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault."""

    name: str
    fault: Fault
    error: type[CallError]
    status: int | None = None
    """Of Transient."""
    waits_s: float | None = None
    """Of Transient: `retry_after_s`."""
    maybe_billed: bool = False
    """Of Transient."""
    timeout_s: float = 30.0
    """What a client is given: no machine is so busy that an answer takes as long; less where there will be none."""


CASES = [
    Case(name="429", fault=faults.rate_limited(), error=Transient, status=429),
    Case(name="429 with seconds", fault=faults.rate_limited(7), error=Transient, status=429, waits_s=7),
    Case(
        name="429 with a date, by a clock an hour ahead",
        fault=faults.rate_limited_until(30, clock_error_s=3600),
        error=Transient,
        status=429,
        waits_s=30,
    ),
    Case(
        name="429 with a date, by a clock a day behind",
        fault=faults.rate_limited_until(30, clock_error_s=-86400),
        error=Transient,
        status=429,
        waits_s=30,
    ),
    Case(name="529", fault=faults.overloaded(), error=Transient, status=529),
    Case(name="500", fault=faults.server_error(), error=Transient, status=500),
    Case(name="503", fault=faults.unavailable(), error=Transient, status=503),
    Case(name="500 that echoes the key", fault=faults.echoing(), error=Transient, status=500),
    Case(name="closed in the middle", fault=faults.closed(), error=Transient, maybe_billed=True),
    Case(name="closed before the answer", fault=faults.closed(before=True), error=Transient, maybe_billed=True),
    Case(name="slow drip", fault=faults.drip(0.05), error=Transient, maybe_billed=True, timeout_s=1.0),
    Case(name="no answer at all", fault=faults.hold(), error=Transient, maybe_billed=True, timeout_s=1.0),
    Case(name="malformed body", fault=faults.malformed(), error=Transient, status=200, maybe_billed=True),
    Case(name="truncated body", fault=faults.truncated(), error=Transient, status=200, maybe_billed=True),
    Case(name="revoked key", fault=faults.revoked(), error=AccountError),
    Case(name="forbidden", fault=faults.status(403), error=AccountError),
    Case(name="no credit", fault=faults.no_credit(), error=AccountError),
    Case(name="prompt too long", fault=faults.too_long(), error=TooLong),
    Case(name="invalid request", fault=faults.status(400), error=RequestError),
]
"""Faults of the server."""


@contextmanager
def full_backlog() -> Iterator[str]:
    """The base URL of a host that takes no connection and does not refuse one either."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for client in waiting:
                client.close()


def closed_port() -> str:
    """The base URL of a host that refuses connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
