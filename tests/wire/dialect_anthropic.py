"""Anthropic's Messages and Message Batches."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from tests.wire.dialect import Dialect, Refusal, Result, bearer
from tests.wire.exchange import Asked
from tests.wire.faults import Fault
from tests.wire.strict import complaint

if TYPE_CHECKING:
    from tests.wire.server import Seen, WireServer

MESSAGES, BATCHES = "/v1/messages", "/v1/messages/batches"
USUAL = {
    400: ("invalid_request_error", "The request is invalid."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "There is an issue with your billing."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not found"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    422: ("invalid_request_error", "The request cannot be processed."),
    429: ("rate_limit_error", "This request would exceed the rate limit for your organization."),
    500: ("api_error", "Internal server error"),
    503: ("api_error", "Service unavailable"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}
NEW = re.compile(r"claude-[a-z]+-[5-9]")
"""Models that think by default, and take neither a budget nor a temperature nor a prefilled answer."""
THINKS = ("enabled", "adaptive")
STOPS = {"end": "end_turn", "max_tokens": "max_tokens", "refusal": "refusal"}
SCHEMA_KEYWORDS = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "allOf", "$ref",
     "$defs", "description", "title", "default", "format", "minItems"}
)  # fmt: skip


@dataclass
class Batch:
    """One message batch."""

    id: str
    requests: list[dict[str, Any]]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    results: list[dict[str, Any]] = field(default_factory=list)
    """In another order than the requests; empty while working."""

    def body(self, url: str) -> dict[str, Any]:
        """As the API shows it: results are counted once all have ended."""
        ended = bool(self.results)
        kinds = [line["result"]["type"] for line in self.results]
        counts = {kind: kinds.count(kind) for kind in ("succeeded", "errored", "canceled", "expired")}
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": {"processing": 0 if ended else len(self.requests), **counts},
            "created_at": self.created.isoformat(),
            "expires_at": (self.created + timedelta(days=1)).isoformat(),
            "ended_at": datetime.now(UTC).isoformat() if ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{url}{BATCHES}/{self.id}/results" if ended else None,
        }


class AnthropicDialect(Dialect):
    """POST /v1/messages without streaming, and its batches."""

    name: ClassVar[str] = "anthropic"

    def __init__(self, server: WireServer) -> None:
        super().__init__(server)
        self.batches: list[Batch] = []

    def speaks(self, path: str) -> bool:
        return path.partition("?")[0] == MESSAGES or path.startswith(BATCHES)

    def asks(self, method: str, path: str) -> bool:
        return method == "POST" and urlsplit(path).path == MESSAGES

    def key(self, headers: Mapping[str, str]) -> str:
        return headers.get("x-api-key") or bearer(headers)

    def wrong_key(self, key: str) -> Refusal:
        return Refusal(401, "invalid x-api-key")

    def check(self, seen: Seen) -> None:
        if "anthropic-version" not in seen.headers:
            raise Refusal(400, "anthropic-version: header is required", invalid="no anthropic-version")
        if seen.method == "GET":
            return
        if self.asks(seen.method, seen.path):
            self.check_params(seen.body)
            return
        from anthropic.types.messages.batch_create_params import BatchCreateParams

        if wrong := complaint(BatchCreateParams, seen.body):
            raise Refusal(400, wrong, invalid=wrong)
        ids = [request["custom_id"] for request in seen.body["requests"]]
        if len(set(ids)) != len(ids) or not all(0 < len(i) <= 64 for i in ids):
            raise Refusal(400, "requests: custom_id must be unique, 1 to 64 characters", invalid="custom_id")
        for request in seen.body["requests"]:
            self.check_params(request["params"])

    def check_params(self, body: Any) -> None:
        """One message request."""
        from anthropic.types.message_create_params import MessageCreateParamsNonStreaming

        wrong = complaint(MessageCreateParamsNonStreaming, body) or self.rules(body)
        if wrong:
            raise Refusal(400, wrong, invalid=wrong)
        if not self.server.knows(body["model"]):
            raise Refusal(404, f"model: {body['model']}")

    def rules(self, body: dict[str, Any]) -> str:
        """What the API refuses though the types allow it."""
        marked = sum("cache_control" in block for _, block in blocks(body))
        if marked > 4:
            return f"A maximum of 4 blocks with cache_control may be provided. Found {marked}."
        if any(not block.get("text", "x").strip() for _, block in blocks(body)):
            return "messages: text content blocks must contain non-whitespace text"
        thinking = body.get("thinking", {})
        if thinking.get("budget_tokens", 1024) < 1024:
            return "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        if thinking.get("budget_tokens", 0) >= body["max_tokens"]:
            return "`max_tokens` must be greater than `thinking.budget_tokens`"
        if NEW.match(body["model"]):
            if thinking.get("type") in ("enabled", "disabled"):
                return f'"thinking.type.{thinking["type"]}" is not supported for this model.'
            if body["messages"][-1]["role"] == "assistant":
                return "This model does not support assistant message prefill."
        return schema_complaint((body.get("output_config", {}).get("format") or {}).get("schema"), "output_config")

    def answer(self, seen: Seen, mind: str) -> Result:
        headers = {
            "request-id": self.new_id("req_"),
            "anthropic-ratelimit-requests-limit": "4000",
            "anthropic-ratelimit-requests-remaining": "3999",
            "anthropic-ratelimit-tokens-limit": "400000",
            "anthropic-ratelimit-tokens-remaining": "399000",
        }
        if self.asks(seen.method, seen.path):
            return Result(200, self.message(seen.body, mind), headers)
        if seen.method == "POST":
            return Result(200, self.create(seen.body["requests"]).body(self.server.url), headers)
        parts = urlsplit(seen.path)
        if parts.path == BATCHES:
            return Result(200, self.listing(parse_qs(parts.query)), headers)
        return self.show(parts.path.removeprefix(f"{BATCHES}/").split("/"), headers)

    def message(self, body: dict[str, Any], mind: str = "") -> dict[str, Any]:
        """The answer to one message request."""
        asked = read(body)
        said = self.server.say(asked, mind)
        counted = self.server.cache.count_marked(asked, f"anthropic {asked.model}", said)
        content = [{"type": "text", "text": said.text}] if said.text else []
        if said.thinking_tokens:
            content.insert(0, {"type": "thinking", "thinking": "", "signature": "c2lnbmF0dXJl"})
        refusal = {"type": "refusal", "category": None, "explanation": None} if said.stop == "refusal" else None
        return {
            "id": self.new_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": content,
            "stop_reason": STOPS[said.stop],
            "stop_sequence": None,
            "stop_details": refusal,
            "usage": {
                "input_tokens": counted.fresh,
                "cache_creation_input_tokens": counted.written,
                "cache_read_input_tokens": counted.read,
                "cache_creation": {"ephemeral_5m_input_tokens": counted.written, "ephemeral_1h_input_tokens": 0},
                "output_tokens": counted.output,
                "output_tokens_details": {"thinking_tokens": said.thinking_tokens},
                "service_tier": "standard",
            },
        }

    # -- batches --

    def create(self, requests: list[dict[str, Any]]) -> Batch:
        """A new batch; it is paid for from here on."""
        batch = Batch(self.new_id("msgbatch_"), requests)
        with self.server.lock:
            self.batches.append(batch)
        for request in requests:
            self.server.pay(MESSAGES, request["params"])
        return batch

    def show(self, words: list[str], headers: dict[str, str]) -> Result:
        """A batch or its results."""
        batch = next((b for b in self.batches if b.id == words[0]), None)
        if batch is None:
            raise Refusal(404, f"Message batch {words[0]} not found.")
        self.finish(batch)
        if words[1:] != ["results"]:
            return Result(200, batch.body(self.server.url), headers)
        if not batch.results:
            raise Refusal(404, "This Message Batch has no results yet.")
        return Result(200, "".join(json.dumps(r) + "\n" for r in batch.results), headers, "application/x-jsonl")

    def listing(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """Batches, the newest first, a page at a time."""
        for batch in self.batches:
            self.finish(batch)
        limit, after = int(query.get("limit", ["20"])[0]), query.get("after_id", [""])[0]
        newest = self.batches[::-1]
        start = next((i + 1 for i, b in enumerate(newest) if b.id == after), 0)
        page = newest[start : start + limit]
        return {
            "data": [batch.body(self.server.url) for batch in page],
            "has_more": start + limit < len(newest),
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }

    def finish(self, batch: Batch) -> None:
        """Works on it, unless batches are kept waiting."""
        with self.server.lock:
            if not self.server.batches_end or batch.results:
                return
            lines = [{"custom_id": r["custom_id"], "result": self.outcome(r["params"])} for r in batch.requests]
            batch.results = lines[::-1]

    def outcome(self, params: dict[str, Any]) -> dict[str, Any]:
        """One request's result."""
        kind = self.server.next_batch_outcome()
        if kind == "succeeded":
            return {"type": "succeeded", "message": self.message(params)}
        if kind in ("expired", "canceled"):
            return {"type": kind}
        fault = Fault(kind="status", status=500) if kind == "errored" else Fault(kind="status", status=400, type=kind)
        return {"type": "errored", "error": self.error_body(self.scripted(fault, ""))}

    # -- errors --

    def scripted(self, fault: Fault, message: str) -> Refusal:
        if fault.type == "too_long":
            return Refusal(400, "prompt is too long: 214000 tokens > 200000 maximum")
        if fault.type == "no_credit":
            return Refusal(
                400,
                "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade "
                "or purchase credits.",
            )
        message = message or USUAL[fault.status][1]
        return Refusal(fault.status, message, fault.type, {"request-id": self.new_id("req_"), **fault.headers})

    def error_body(self, refusal: Refusal) -> Any:
        kind = refusal.type or USUAL[refusal.status][0]
        request_id = refusal.headers.get("request-id")
        return {"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": request_id}


def blocks(body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(role, block) in the order in which the API's cache sees them."""
    found = [("system", block) for block in as_blocks(body.get("system", []))]
    for message in body["messages"]:
        found += [(message["role"], block) for block in as_blocks(message["content"])]
    return found


def as_blocks(content: Any) -> list[dict[str, Any]]:
    """Content as a list of blocks."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def thinks(body: dict[str, Any]) -> bool:
    """Whether the model thinks before it replies: on by default from Claude 5."""
    return body.get("thinking", {}).get("type", "adaptive" if NEW.match(body["model"]) else "") in THINKS


def read(body: dict[str, Any]) -> Asked:
    """The question in a body."""
    marks, position = [], 0
    for _, block in blocks(body):
        position += len(block.get("text", ""))
        if block.get("cache_control"):
            marks.append(position)
    turns = [(m["role"], "".join(b.get("text", "") for b in as_blocks(m["content"]))) for m in body["messages"]]
    config = body.get("output_config", {})
    return Asked(
        model=body["model"],
        system="".join(block["text"] for block in as_blocks(body.get("system", []))),
        turns=tuple(turns),
        schema=(config.get("format") or {}).get("schema"),
        max_tokens=body["max_tokens"],
        marks=tuple(marks),
        thinks=thinks(body),
    )


def schema_complaint(schema: Any, path: str) -> str:
    """What structured output does not take: unknown keywords, and objects that allow further properties."""
    if not isinstance(schema, dict):
        return ""
    if unknown := sorted(set(schema) - SCHEMA_KEYWORDS):
        return f"{path}: For '{schema.get('type')}' type, properties {', '.join(unknown)} are not supported"
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return f"{path}: For 'object' type, 'additionalProperties' must be explicitly set to false"
    if schema.get("minItems", 0) > 1:
        return f"{path}: For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    inner = [(k, v) for key in ("properties", "$defs") for k, v in schema.get(key, {}).items()]
    inner += [("items", schema.get("items"))]
    inner += [(str(i), s) for key in ("anyOf", "allOf") for i, s in enumerate(schema.get(key, ()))]
    return next(filter(None, (schema_complaint(s, f"{path}.{name}") for name, s in inner)), "")
