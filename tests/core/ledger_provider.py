"""A provider whose behaviour a test writes down, and processes that use it: the ledger is what is under test."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path

from m3i.config.settings import LedgerSettings
from m3i.ledger import Ledger
from m3i.ledger.request import BatchState, Block, Message, ModelRequest, Reply, Stop, Transient, Usage

MODEL = "test-model"
PRICES = {MODEL: {"input": 1.0, "output": 1.0}}
"""A millionth of a dollar a token."""
COST = 1e-6 * (100 + 50)
"""Of one call, by the provider's usage."""


def request(text, *, replicate=0, model=MODEL, provider="scripted", max_tokens=1000, **fields):
    return ModelRequest(
        provider=provider,
        model=model,
        system=(Block(text="Be brief.", cache=True),),
        messages=(Message(role="user", blocks=(Block(text=str(text)),)),),
        schema={"type": "object"},
        max_tokens=max_tokens,
        replicate=replicate,
        **fields,
    )


def words(req):
    return req.messages[0].text


def echo(req, usage=None, **fields):
    usage = usage or Usage(input_tokens=100, output_tokens=50)
    made = {"text": f"answer to {words(req)}", "stop": Stop.END, "usage": usage, "model": f"{req.model}-0001"}
    return Reply(**{**made, "request_id": "req-1", "raw": {"id": "req-1"}, **fields})


class ScriptedProvider:
    """`script(request, attempt)` returns a Reply, raises, or is a coroutine function that does."""

    name = "scripted"

    def __init__(self, script=None, *, delay_s=0.0):
        self.script = script or (lambda req, attempt: echo(req))
        self.delay_s = delay_s
        self.attempts = Counter()
        self.in_flight = 0
        self.most_in_flight = 0
        self.timeouts = []

    @property
    def n_sent(self):
        return sum(self.attempts.values())

    async def send(self, req, *, timeout_s):
        self.attempts[words(req)] += 1
        self.timeouts.append(timeout_s)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
            made = self.script(req, self.attempts[words(req)])
            return await made if asyncio.iscoroutine(made) else made
        finally:
            self.in_flight -= 1

    async def aclose(self):
        pass


class BatchingProvider(ScriptedProvider):
    """Takes batches; `folder` makes them outlive the process, as a provider's do."""

    def __init__(self, folder: Path, script=None, *, polls=1, submit_fault=None):
        super().__init__(script)
        self.folder = folder
        self.polls = polls
        self.submit_fault = submit_fault
        self.states = Counter()
        self.finds = 0

    @property
    def submitted(self):
        """Names of the batches that arrived, and how many requests each has."""
        return {p.stem: len(p.read_text().split()) for p in self.folder.glob("*.batch")}

    async def submit(self, name, requests):
        fault = self.submit_fault(name) if self.submit_fault else None
        if fault is None or getattr(fault, "maybe_billed", False):
            (self.folder / f"{name}.batch").write_text("\n".join(requests))
            self.requests = {**getattr(self, "requests", {}), **requests}
        if fault is not None:
            raise fault
        return f"id-{name}"

    async def find(self, name, request_ids):
        self.finds += 1
        return f"id-{name}" if (self.folder / f"{name}.batch").exists() else None

    async def state(self, batch_id):
        self.states[batch_id] += 1
        return BatchState.ENDED if self.states[batch_id] >= self.polls else BatchState.WORKING

    async def collect(self, batch_id):
        keys = (self.folder / f"{batch_id.removeprefix('id-')}.batch").read_text().split()
        out = {}
        for key in keys:
            self.attempts[key] += 1
            try:
                made = self.script(self.requests.get(key), self.attempts[key])
                out[key] = made
            except Exception as error:
                out[key] = error
        return out


def ledger_at(path, **settings):
    fields = {"prices": PRICES, "budget_usd": 20.0, "path": str(path), **settings}
    return Ledger(LedgerSettings(**fields), default_path=Path("unused.sqlite"))


def flaky(*errors):
    """A script that raises these, one an attempt, then answers."""
    return lambda req, attempt: _raise(errors[attempt - 1]()) if attempt <= len(errors) else echo(req)


def _raise(error):
    raise error


def hangs():
    """A call that is sent and never comes back."""

    async def forever(req, attempt):
        await asyncio.Event().wait()

    return forever


def overloaded(retry_after_s=None, status=429):
    return lambda: Transient("slow down", status=status, retry_after_s=retry_after_s)


UNIQUE = itertools.count()
