"""Gemini's generateContent and its batches with inlined requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from tests.wire.dialect import Dialect, Refusal, Result
from tests.wire.exchange import Asked
from tests.wire.faults import Fault
from tests.wire.strict import complaint

if TYPE_CHECKING:
    from tests.wire.server import Seen, WireServer

MODEL = re.compile(r"/v1(?:beta)?/models/([^/:]+):(generateContent|batchGenerateContent)")
BATCHES = re.compile(r"/v1(?:beta)?/batches(?:/([^/:]+))?")
TYPES = "type.googleapis.com/google"
USUAL = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "The caller does not have permission"),
    404: ("NOT_FOUND", "Requested entity was not found."),
    429: ("RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details."),
    500: ("INTERNAL", "An internal error has occurred. Please retry."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    529: ("UNAVAILABLE", "Overloaded"),
}
FINISH = {"end": "STOP", "max_tokens": "MAX_TOKENS"}


@cache
def request_types() -> tuple[Any, Any]:
    """Bodies of generateContent and batchGenerateContent, of the SDK's own types; unknown keys are refused."""
    from google.genai import types
    from pydantic import BaseModel, ConfigDict

    class Body(BaseModel):
        model_config = ConfigDict(extra="forbid")

    class Generate(Body):
        contents: list[types.Content]
        systemInstruction: types.Content | None = None
        generationConfig: types.GenerationConfig | None = None
        safetySettings: list[types.SafetySetting] | None = None
        tools: list[types.Tool] | None = None
        toolConfig: types.ToolConfig | None = None
        labels: dict[str, str] | None = None
        cachedContent: str | None = None
        serviceTier: str | None = None
        model: str | None = None

    class Inlined(Body):
        request: Generate
        metadata: dict[str, Any] | None = None

    class Requests(Body):
        requests: list[Inlined]

    class Input(Body):
        requests: Requests

    class Job(Body):
        displayName: str
        inputConfig: Input

    class Batch(Body):
        batch: Job

    return Generate, Batch


@dataclass
class Batch:
    """One batch job."""

    name: str
    model: str
    title: str
    requests: list[dict[str, Any]]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    responses: list[dict[str, Any]] = field(default_factory=list)
    """In another order than the requests, as the real API may have them; empty while working."""

    def body(self) -> dict[str, Any]:
        """The operation."""
        done = bool(self.responses)
        output = {"inlinedResponses": {"inlinedResponses": self.responses}}
        metadata = {
            "@type": f"{TYPES}.ai.generativelanguage.v1main.GenerateContentBatch",
            "name": self.name,
            "model": f"models/{self.model}",
            "displayName": self.title,
            "createTime": self.created.isoformat(),
            "updateTime": self.created.isoformat(),
            "batchStats": {"requestCount": str(len(self.requests))},
            "state": "BATCH_STATE_SUCCEEDED" if done else "BATCH_STATE_RUNNING",
            **({"endTime": datetime.now(UTC).isoformat(), "output": output} if done else {}),
        }
        return {"name": self.name, "metadata": metadata, **({"done": True, "response": output} if done else {})}


class GeminiDialect(Dialect):
    """The Gemini API (not Vertex), without streaming."""

    name: ClassVar[str] = "gemini"

    def __init__(self, server: WireServer) -> None:
        super().__init__(server)
        self.batches: list[Batch] = []

    def speaks(self, path: str) -> bool:
        path = urlsplit(path).path
        return bool(MODEL.fullmatch(path) or BATCHES.fullmatch(path))

    def asks(self, method: str, path: str) -> bool:
        return path.endswith(":generateContent")

    def key(self, headers: Mapping[str, str]) -> str:
        return headers.get("x-goog-api-key", "")

    def wrong_key(self, key: str) -> Refusal:
        if not key:
            message = "Method doesn't allow unregistered callers. Please use API Key or other form of API consumer."
            return Refusal(403, message)
        info = {"@type": f"{TYPES}.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
        info["metadata"] = {"service": "generativelanguage.googleapis.com"}  # type: ignore[assignment]
        return Refusal(400, "API key not valid. Please pass a valid API key.", extra={"details": [info]})

    def check(self, seen: Seen) -> None:
        if seen.method == "GET":
            return
        found = MODEL.fullmatch(urlsplit(seen.path).path)
        assert found is not None
        model, verb = found.groups()
        wrong = complaint(request_types()[verb == "batchGenerateContent"], seen.body)
        if not wrong:
            bodies = [seen.body] if self.asks(seen.method, seen.path) else [r["request"] for r in inlined(seen.body)]
            wrong = next(filter(None, map(rules, bodies)), "")
        if wrong:
            raise Refusal(400, f"Invalid JSON payload received. {wrong}", invalid=wrong)
        if not self.server.knows(model):
            message = (
                f"models/{model} is not found for API version v1beta, or is not supported for {verb}. Call ListModels "
                "to see the list of available models and their supported methods."
            )
            raise Refusal(404, message)

    def answer(self, seen: Seen, mind: str) -> Result:
        parts = urlsplit(seen.path)
        if found := MODEL.fullmatch(parts.path):
            if self.asks(seen.method, seen.path):
                return Result(200, self.response(found[1], seen.body, mind))
            return Result(200, self.create(found[1], seen.body).body())
        name = (BATCHES.fullmatch(parts.path) or [""])[1]
        if not name:
            return Result(200, self.listing(parse_qs(parts.query)))
        batch = next((b for b in self.batches if b.name == f"batches/{name}"), None)
        if batch is None:
            raise Refusal(404, "Requested entity was not found.")
        self.finish(batch)
        return Result(200, batch.body())

    def response(self, model: str, body: dict[str, Any], mind: str = "") -> dict[str, Any]:
        """A GenerateContentResponse."""
        asked = read(model, body)
        said = self.server.say(asked, mind)
        counted = self.server.cache.count_implicit(asked, f"gemini {model}", said)
        prompt, shown = counted.fresh + counted.read, counted.output - said.thinking_tokens
        usage = {
            "promptTokenCount": prompt,
            "candidatesTokenCount": shown,
            "totalTokenCount": prompt + counted.output,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        }
        if counted.read:
            usage["cachedContentTokenCount"] = counted.read
        if said.thinking_tokens:
            usage["thoughtsTokenCount"] = said.thinking_tokens
        answer = {"usageMetadata": usage, "modelVersion": model, "responseId": self.new_id("resp")}
        if said.stop == "refusal":
            return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **answer}
        content = {"role": "model", **({"parts": [{"text": said.text}]} if said.text else {})}
        return {"candidates": [{"content": content, "finishReason": FINISH[said.stop], "index": 0}], **answer}

    # -- batches --

    def create(self, model: str, body: dict[str, Any]) -> Batch:
        """A new batch; it is paid for from here on."""
        name = f"batches/{self.new_id('')}"
        batch = Batch(name, model, body["batch"]["displayName"], inlined(body))
        with self.server.lock:
            self.batches.append(batch)
        for item in batch.requests:
            content = {key: value for key, value in item["request"].items() if key != "model"}
            self.server.pay(f"/v1beta/models/{model}:generateContent", content)
        return batch

    def listing(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """Batches, the newest first, a page at a time."""
        for batch in self.batches:
            self.finish(batch)
        size, start = int(query.get("pageSize", ["50"])[0]), int(query.get("pageToken", ["0"])[0])
        page = self.batches[::-1][start : start + size]
        more = {"nextPageToken": str(start + size)} if start + size < len(self.batches) else {}
        return {"operations": [batch.body() for batch in page], **more}

    def finish(self, batch: Batch) -> None:
        """Works on it, unless batches are kept waiting."""
        with self.server.lock:
            if self.server.batches_end and not batch.responses:
                batch.responses = [self.outcome(batch.model, item) for item in batch.requests][::-1]

    def outcome(self, model: str, item: dict[str, Any]) -> dict[str, Any]:
        """One request's response or error."""
        kind, metadata = self.server.next_batch_outcome(), item.get("metadata")
        if kind == "succeeded":
            return {"response": self.response(model, item["request"]), "metadata": metadata}
        too_long = self.scripted(Fault(kind="status", type="too_long"), "")
        error = {
            "too_long": {"code": 3, "message": too_long.message},
            "expired": {"code": 4, "message": "Batch expired before this request was processed."},
            "canceled": {"code": 1, "message": "Batch was cancelled."},
        }.get(kind, {"code": 13, "message": "An internal error has occurred."})
        return {"error": error, "metadata": metadata}

    # -- errors --

    def scripted(self, fault: Fault, message: str) -> Refusal:
        if fault.type == "too_long":
            message = "The input token count (1214000) exceeds the maximum number of tokens allowed (1048576)."
            return Refusal(400, message)
        if fault.type == "no_credit":
            message = "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing."
            return Refusal(429, message)
        if fault.status == 401:
            return self.wrong_key("revoked")
        wait, headers = fault.headers.get("retry-after", ""), dict(fault.headers)
        extra = {}
        if re.fullmatch(r"[\d.]+", wait):  # Gemini says it in the body
            del headers["retry-after"]
            extra = {"details": [{"@type": f"{TYPES}.rpc.RetryInfo", "retryDelay": f"{wait}s"}]}
        return Refusal(fault.status, message or USUAL[fault.status][1], fault.type, headers, extra=extra)

    def error_body(self, refusal: Refusal) -> Any:
        status = refusal.type or USUAL[refusal.status][0]
        return {"error": {"code": refusal.status, "message": refusal.message, "status": status, **refusal.extra}}


def inlined(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The requests of a batch."""
    return list(body["batch"]["inputConfig"]["requests"]["requests"])


def rules(body: dict[str, Any]) -> str:
    """What the API refuses though the types allow it."""
    config = body.get("generationConfig", {})
    if ("responseSchema" in config or "responseJsonSchema" in config) and (
        config.get("responseMimeType") != "application/json"
    ):
        return "response_schema: only supported with response_mime_type application/json"
    if any(turn.get("role") not in ("user", "model") for turn in body["contents"]):
        return "Please use a valid role: user, model."
    return ""


def text_of(content: dict[str, Any] | None) -> str:
    """Of a Content."""
    return "".join(part.get("text", "") for part in (content or {}).get("parts", ()))


def read(model: str, body: dict[str, Any]) -> Asked:
    """The question in a body."""
    config = body.get("generationConfig", {})
    thinking = config.get("thinkingConfig", {})
    return Asked(
        model=model,
        system=text_of(body.get("systemInstruction")),
        turns=tuple((turn["role"], text_of(turn)) for turn in body["contents"]),
        schema=config.get("responseJsonSchema") or config.get("responseSchema"),
        max_tokens=config.get("maxOutputTokens", 65_536),
        thinks=bool(thinking) and 0 not in (thinking.get("thinkingBudget"), thinking.get("thinking_budget")),
    )
