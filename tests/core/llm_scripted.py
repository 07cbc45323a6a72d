"""Traces, a provider that answers from a script, and components on top of it, for the tests of m3i.llm."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar

from m3i.artifacts import Answer, Problem, Trace
from m3i.ledger.request import BatchState, ModelRequest, Reply, Stop, Usage
from m3i.llm.judge import LLMJudge
from m3i.llm.observer import LLMObserver
from m3i.llm.remote import RemoteModel

PROBLEM = Problem(id="p", prompt="48+7*6-15=?", answer="75")


def trace_of(text, trace_id="p.0", problem_id="p"):
    """A trace with one token a character and an end-of-sequence token."""
    n = len(text)
    return Trace(
        id=trace_id, problem_id=problem_id, sample=0, prompt_ids=(1,), completion_ids=tuple(range(n + 1)), text=text,
        offsets=(*((i, i + 1) for i in range(n)), (n, n)), logprobs=(-1.0,) * (n + 1), correct=False, answer=None,
        truncated=False,
    )  # fmt: skip


def answer_of(text, problem_id="p", seed=0):
    return Answer(
        problem_id=problem_id, seed=seed, completion_ids=tuple(map(ord, text)), text=text, correct=False, answer=None,
        truncated=False,
    )  # fmt: skip


def finding(quote, **others):
    """A finding as a model writes it."""
    return {
        "step": 1, "quote": quote, "reason": "it is wrong", "kind": "arithmetic", "correction": None, "severity": 0.5,
        "confidence": 0.9,
    } | others  # fmt: skip


def findings(*items):
    return json.dumps({"findings": list(items)})


def verdict(choice, reason="so"):
    return json.dumps({"reason": reason, "choice": choice})


def reply(text, stop=Stop.END, model="scripted-1-2026"):
    usage = Usage(input_tokens=100, cache_read_tokens=20, cache_write_tokens=3, output_tokens=7)
    return Reply(text=text, stop=stop, usage=usage, model=model, request_id="r")


Script = Callable[[ModelRequest], Reply | Exception]


async def until(condition):
    """Returns once the condition holds."""
    while not condition():
        await asyncio.sleep(0.005)


@dataclass
class ScriptedProvider:
    """Answers each request by calling `script`; keeps what was asked, and how many calls were in flight at once."""

    script: Script
    name: str = "scripted"
    hold: Callable[["ScriptedProvider", ModelRequest], Awaitable[None]] | None = None
    """Awaited before a request is answered."""
    asked: list[ModelRequest] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    finished: int = 0
    closed: int = 0

    async def send(self, request, *, timeout_s):
        self.asked.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            if self.hold is not None:
                await asyncio.wait_for(self.hold(self, request), 30)
        finally:
            self.in_flight -= 1
        self.finished += 1
        outcome = self.script(request)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self):
        self.closed += 1


@dataclass
class ScriptedBatchProvider(ScriptedProvider):
    """The same with batches that have ended when they are looked at."""

    batches: dict[str, tuple[str, dict[str, ModelRequest]]] = field(default_factory=dict)

    async def submit(self, name, requests):
        self.asked += requests.values()
        self.batches[f"batch-{len(self.batches)}"] = (name, dict(requests))
        return f"batch-{len(self.batches) - 1}"

    async def find(self, name, request_ids):
        return next((i for i, (n, _) in self.batches.items() if n == name), None)

    async def state(self, batch_id):
        return BatchState.ENDED

    async def collect(self, batch_id):
        return {i: self.script(r) for i, r in self.batches[batch_id][1].items()}


@dataclass(kw_only=True)
class Scripted(RemoteModel):
    """Mixed in before the base classes; the provider is set on the class by `with_provider`."""

    provider_name: ClassVar[str] = "scripted"
    key_variables: ClassVar[tuple[str, ...]] = ("SCRIPTED_API_KEY", "OTHER_API_KEY")
    has_batches: ClassVar[bool] = True
    client: ClassVar[ScriptedProvider]

    model: str = "scripted-1"
    """Model id."""

    def provider(self):
        return self.client


@dataclass(kw_only=True)
class ScriptedObserver(Scripted, LLMObserver):
    """An observer that answers from a script."""


@dataclass(kw_only=True)
class ScriptedJudge(Scripted, LLMJudge):
    """A judge that answers from a script."""


def with_provider(cls, provider, **options):
    """A component of a fresh subclass whose client is `provider`."""
    made = dataclass(kw_only=True)(type(cls.__name__, (cls,), {"client": provider, "__annotations__": {}}))
    return made(**options)
