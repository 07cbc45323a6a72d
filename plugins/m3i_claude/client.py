"""The client for Anthropic's API: single calls, and message batches."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from m3i.ledger.request import BatchState, CallError, ModelRequest, Reply, Transient
from m3i.llm.sdk import BATCH_CALL_S, connect_s, in_time, quiet

from .failures import batch_error, call_error
from .messages import message_params, read_message, unreadable

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types.messages import MessageBatch

RESULTS_KEPT = timedelta(days=29)
"""How long Anthropic keeps a batch's results."""
TAG = re.compile(r"-m3i[0-9a-f]{12}$")
"""End of a custom id: says which batch it belongs to, since a batch has no name."""
MAX_ID = 64 - 16


class AnthropicProvider:
    """Sends requests with the SDK; keys, base URL and proxies come from the SDK's own environment variables."""

    name = "anthropic"

    def __init__(self) -> None:
        self._client: AsyncAnthropic | None = None

    def _sdk(self) -> AsyncAnthropic:
        """The SDK's client, created on first use."""
        if self._client is None:
            import anthropic

            quiet("anthropic", "httpx2")
            try:
                self._client = anthropic.AsyncAnthropic(max_retries=0)
            except anthropic.AnthropicError as error:
                raise call_error(error) from error
        return self._client

    async def load_client(self) -> None:
        """Imports the SDK without holding up calls in flight."""
        await asyncio.to_thread(importlib.import_module, "anthropic")
        self._sdk()

    async def send(self, request: ModelRequest, *, timeout_s: float) -> Reply:
        """Sends one message."""
        params, client = message_params(request), self._sdk()
        async with mapped(timeout_s):
            response = await client.messages.with_raw_response.create(**params, timeout=timeouts(timeout_s))
            return read_message(response.http_response.json(), response.headers.get("request-id", ""))

    async def aclose(self) -> None:
        """Closes connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    # -- batches --

    async def submit(self, name: str, requests: Mapping[str, ModelRequest]) -> str:
        """Submits a batch; its name becomes part of every custom id, so ids have at most 48 characters."""
        assert all(len(i) <= MAX_ID for i in requests), f"ids of more than {MAX_ID} characters"
        items = [{"custom_id": i + tag(name), "params": message_params(r)} for i, r in requests.items()]
        async with mapped(BATCH_CALL_S):
            batch = await self._sdk().messages.batches.create(requests=items, timeout=timeouts(BATCH_CALL_S))  # type: ignore[arg-type]
            if not isinstance(getattr(batch, "id", None), str):
                raise unreadable()
            return batch.id

    async def find(self, name: str, request_ids: frozenset[str]) -> str | None:
        """Returns the batch whose custom ids carry this name, else an unfinished one of the same size.

        An unfinished batch shows its size but no ids, so this guess can be another run's batch of the same size. It
        then brings no results for these requests.
        """
        guess = None
        async with mapped(BATCH_CALL_S):
            async for batch in self._sdk().messages.batches.list(limit=100, timeout=timeouts(BATCH_CALL_S)):
                if batch.created_at < datetime.now(UTC) - RESULTS_KEPT:
                    break
                if size(batch) != len(request_ids):
                    continue
                if batch.processing_status != "ended":
                    guess = guess or batch.id
                elif batch.results_url is not None and await self._is_named(batch, name):
                    return batch.id
        return guess

    async def _is_named(self, batch: MessageBatch, name: str) -> bool:
        """Whether an ended batch was submitted under a name."""
        async for line in await self._results(batch.id):
            return bool(line.custom_id.endswith(tag(name)))
        return False

    async def _results(self, batch_id: str) -> Any:
        return await self._sdk().messages.batches.results(batch_id, timeout=timeouts(BATCH_CALL_S))

    async def state(self, batch_id: str) -> BatchState:
        """Returns whether the batch has ended."""
        async with mapped(BATCH_CALL_S):
            batch = await self._sdk().messages.batches.retrieve(batch_id, timeout=timeouts(BATCH_CALL_S))
            return BatchState.ENDED if batch.processing_status == "ended" else BatchState.WORKING

    async def collect(self, batch_id: str) -> Mapping[str, Reply | CallError]:
        """Returns every request's outcome under its id."""
        async with mapped(BATCH_CALL_S):
            return {TAG.sub("", line.custom_id): outcome(line.result) async for line in await self._results(batch_id)}


def tag(name: str) -> str:
    """The mark on the custom ids of a batch."""
    return "-m3i" + hashlib.sha256(name.encode()).hexdigest()[:12]


def size(batch: MessageBatch) -> int:
    """Number of requests in a batch, whatever became of them."""
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired


def outcome(result: Any) -> Reply | CallError:
    """The outcome in one line of a batch's results."""
    if result.type == "succeeded":
        message = result.message.to_dict(mode="json")
        try:
            return read_message(message, str(message.get("id", "")))
        except CallError as error:
            return error
    if result.type == "errored":
        return batch_error(result.error.error.type, result.error.error.message)
    return Transient(f"Anthropic: the batch ended before this request was processed ({result.type})")


@asynccontextmanager
async def mapped(timeout_s: float) -> AsyncIterator[None]:
    """Enforces the timeout and turns the SDK's errors into ours."""
    import anthropic
    import httpx2

    try:
        async with in_time("Anthropic", timeout_s):
            yield
    except (anthropic.AnthropicError, httpx2.HTTPError, json.JSONDecodeError, UnicodeError) as error:
        raise call_error(error) from error
    except TypeError as error:
        if "authentication" not in str(error):  # the SDK's word for a missing key
            raise
        raise call_error(error) from error


def timeouts(timeout_s: float) -> Any:
    """The SDK's timeouts."""
    import httpx2

    return httpx2.Timeout(timeout_s, connect=connect_s(timeout_s))
