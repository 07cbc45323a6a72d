"""The client for the Gemini API: single calls, and batches of inlined requests."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from m3i.ledger.request import BatchState, CallError, ModelRequest, Reply, RequestError, Transient
from m3i.llm.sdk import BATCH_CALL_S, CONNECT_S, connect_s, in_time, quiet

from .contents import config, contents, read_response
from .failures import batch_error, call_error, no_client

if TYPE_CHECKING:
    from google.genai import Client

MAX_BATCH_BYTES = 20_000_000
"""Maximum size of inlined requests that the API accepts."""
ID = "m3i"
"""Key of a request's id in its metadata."""
WORKING = ("QUEUED", "PENDING", "RUNNING", "UPDATING", "PAUSED", "CANCELLING", "UNSPECIFIED")


class GeminiProvider:
    """Sends requests with the SDK; keys, base URL, proxies and Vertex come from the SDK's own environment variables."""

    name = "gemini"

    def __init__(self) -> None:
        self._client: Client | None = None
        self._http: Any = None

    def _sdk(self) -> Client:
        """The SDK's client, created on first use, with its own retries switched off."""
        if self._client is None:
            import httpx2
            from google import genai
            from google.genai import types

            quiet("google_genai", "httpx2")
            hooks = {"request": [connect_sooner]}
            self._http = httpx2.AsyncClient(follow_redirects=True, timeout=None, event_hooks=hooks)  # the SDK sets one
            options = types.HttpOptions(retry_options=types.HttpRetryOptions(attempts=1), httpx_async_client=self._http)
            try:
                self._client = genai.Client(http_options=options)
            except ValueError as error:
                raise no_client(error) from error
        return self._client

    async def load_client(self) -> None:
        """Imports the SDK without holding up calls in flight."""
        await asyncio.to_thread(importlib.import_module, "google.genai")
        self._sdk()

    async def send(self, request: ModelRequest, *, timeout_s: float) -> Reply:
        """Sends one generateContent request; the SDK's own loops (tools, continuations) are off."""
        from google.genai import types

        settings = types.GenerateContentConfig(
            **config(request),
            http_options=types.HttpOptions(timeout=round(1000 * timeout_s)),
            should_return_http_response=True,
            automatic_continuation=False,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        models = self._sdk().aio.models  # outside the timeout: the SDK's import takes seconds
        async with mapped(timeout_s):
            answer = await models.generate_content(model=request.model, contents=contents(request), config=settings)  # type: ignore[arg-type]
            http = answer.sdk_http_response
            return read_response(json.loads((http and http.body) or ""), request.model)

    async def aclose(self) -> None:
        """Closes connections."""
        if self._http is not None:
            await self._http.aclose()
        if self._client is not None:
            await self._client.aio.aclose()
            self._client.close()
        self._client = self._http = None

    # -- batches --

    async def submit(self, name: str, requests: Mapping[str, ModelRequest]) -> str:
        """Submits a batch with `name` as its display name."""
        from google.genai import types

        models = {request.model for request in requests.values()}
        assert len(models) == 1, "a batch is of one model"
        items = [
            types.InlinedRequest(contents=contents(r), config=config(r), metadata={ID: i})  # type: ignore[arg-type]
            for i, r in requests.items()
        ]
        size = sum(len(item.model_dump_json(exclude_none=True).encode()) for item in items)
        if size > MAX_BATCH_BYTES:
            raise RequestError(
                f"Gemini: {len(items)} requests have {size / 1e6:.0f} MB together, but a batch takes at most "
                f"{MAX_BATCH_BYTES / 1e6:.0f} MB: use mode=each, or fewer problems"
            )
        settings = types.CreateBatchJobConfig(display_name=name, http_options=batch_options())
        async with mapped(BATCH_CALL_S):
            job = await self._sdk().aio.batches.create(model=models.pop(), src=items, config=settings)
            return named(job)

    async def find(self, name: str, request_ids: frozenset[str]) -> str | None:
        """Returns the batch with this display name."""
        from google.genai import types

        settings = types.ListBatchJobsConfig(page_size=100, http_options=batch_options())
        async with mapped(BATCH_CALL_S):
            async for job in await self._sdk().aio.batches.list(config=settings):
                if job.display_name == name:
                    return named(job)
        return None

    async def state(self, batch_id: str) -> BatchState:
        """Returns whether the batch has ended."""
        async with mapped(BATCH_CALL_S):
            return BatchState.WORKING if unfinished(await self._job(batch_id)) else BatchState.ENDED

    async def _job(self, batch_id: str) -> Any:
        from google.genai import types

        settings = types.GetBatchJobConfig(http_options=batch_options())
        return await self._sdk().aio.batches.get(name=batch_id, config=settings)

    async def collect(self, batch_id: str) -> Mapping[str, Reply | CallError]:
        """Returns every request's outcome under its id; empty for a batch that failed or expired as a whole."""
        async with mapped(BATCH_CALL_S):
            job = await self._job(batch_id)
        responses = (job.dest and job.dest.inlined_responses) or []
        model = (job.model or "").removeprefix("models/")
        known = {r.metadata[ID]: outcome(r, model) for r in responses if ID in (r.metadata or {})}
        if responses and not known:  # their order says nothing: github.com/googleapis/python-genai/issues/1909
            raise RequestError(
                f"Gemini: {batch_id} came back without the metadata that says which request each answer belongs to, "
                "so its answers cannot be used: use mode=each"
            )
        return known


def named(job: Any) -> str:
    """The id of a batch."""
    if not job.name:
        raise Transient("Gemini: the response is not the JSON of a batch", status=200, maybe_billed=True)
    return str(job.name)


def unfinished(job: Any) -> bool:
    """Whether a batch is still in progress."""
    state = getattr(job.state, "value", "") or "UNSPECIFIED"
    return state.removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_") in WORKING


def outcome(response: Any, model: str) -> Reply | CallError:
    """The outcome in one response of a batch."""
    if response.response is not None:
        try:
            raw = response.response.model_dump(mode="json", by_alias=True, exclude_none=True)
            return read_response(raw, model)
        except CallError as error:
            return error
    if response.error is None:
        return Transient("Gemini: the batch ended without an answer to this request")
    return batch_error(response.error.code or 0, response.error.message or "")


@asynccontextmanager
async def mapped(timeout_s: float) -> AsyncIterator[None]:
    """Enforces the timeout and turns the SDK's errors into ours."""
    import httpx2
    from google.genai import errors

    try:
        async with in_time("Gemini", timeout_s):
            yield
    except (errors.APIError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise call_error(error) from error


def batch_options() -> Any:
    """Options with the timeout of calls about batches."""
    from google.genai import types

    return types.HttpOptions(timeout=round(1000 * BATCH_CALL_S))


async def connect_sooner(request: Any) -> None:
    """Gives connecting its own, shorter timeout."""
    timeout = request.extensions.get("timeout", {})
    whole = timeout.get("connect")
    timeout["connect"] = CONNECT_S if whole is None else connect_s(whole)
