"""OpenAI's chat completions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tests.wire.dialect import Dialect, Refusal, Result, bearer
from tests.wire.exchange import Asked
from tests.wire.faults import Fault
from tests.wire.strict import complaint

if TYPE_CHECKING:
    from tests.wire.server import Seen

PATH = "/v1/chat/completions"
USUAL = {
    400: ("invalid_request_error", "The request is invalid."),
    401: ("invalid_request_error", "Incorrect API key provided. You can find your API key in your account settings."),
    403: ("invalid_request_error", "Country, region, or territory not supported"),
    404: ("invalid_request_error", "Not found."),
    429: ("requests", "Rate limit reached for requests. Please try again later."),
    500: ("server_error", "The server had an error while processing your request. Sorry about that!"),
    503: ("server_error", "The engine is currently overloaded, please try again later."),
    529: ("server_error", "Overloaded"),
}
FINISH = {"end": "stop", "max_tokens": "length", "refusal": "stop"}


def text_of(content: Any) -> str:
    """Of a message: a string or a list of parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


class OpenAIDialect(Dialect):
    """POST /v1/chat/completions, without streaming."""

    name: ClassVar[str] = "openai"

    def speaks(self, path: str) -> bool:
        return path.partition("?")[0] == PATH

    def asks(self, method: str, path: str) -> bool:
        return method == "POST"

    def key(self, headers: Mapping[str, str]) -> str:
        return bearer(headers)

    def wrong_key(self, key: str) -> Refusal:
        shown = f"{key[:3]}{'*' * max(0, len(key) - 7)}{key[-4:]}"
        message = f"Incorrect API key provided: {shown}. You can find your API key in your account settings."
        return Refusal(401, message, extra={"code": "invalid_api_key"})

    def check(self, seen: Seen) -> None:
        from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

        if wrong := complaint(CompletionCreateParamsNonStreaming, seen.body):
            raise Refusal(400, wrong, invalid=wrong)
        model = seen.body["model"]
        if not self.server.knows(model):
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise Refusal(404, message, extra={"code": "model_not_found"})

    def answer(self, seen: Seen, mind: str) -> Result:
        asked = self.read(seen.body)
        said = self.server.say(asked, mind)
        counted = self.server.cache.count_implicit(asked, f"openai {asked.model}", said)
        refused = said.stop == "refusal"
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if refused else said.text,
            "refusal": "I'm sorry, I can't help with that." if refused else None,
            "annotations": [],
        }
        usage = {
            "prompt_tokens": counted.fresh + counted.read,
            "completion_tokens": counted.output,
            "total_tokens": counted.fresh + counted.read + counted.output,
            "prompt_tokens_details": {"cached_tokens": counted.read, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": said.thinking_tokens, "audio_tokens": 0},
        }
        body = {
            "id": self.new_id("chatcmpl-"),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": asked.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": FINISH[said.stop]}],
            "usage": usage,
            "service_tier": "default",
        }
        headers = {"x-request-id": self.new_id("req_"), "x-ratelimit-remaining-requests": "4999"}
        return Result(200, body, headers)

    def read(self, body: dict[str, Any]) -> Asked:
        """The question in a body."""
        turns = [(m["role"], text_of(m.get("content"))) for m in body["messages"]]
        format = body.get("response_format") or {}
        effort = body.get("reasoning_effort")
        return Asked(
            model=body["model"],
            system="".join(text for role, text in turns if role in ("system", "developer")),
            turns=tuple((role, text) for role, text in turns if role not in ("system", "developer")),
            schema=format["json_schema"].get("schema") if format.get("type") == "json_schema" else None,
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens") or 16_384,
            thinks=effort not in (None, "none", "minimal"),
        )

    def scripted(self, fault: Fault, message: str) -> Refusal:
        if fault.type == "too_long":
            message = "This model's maximum context length is 128000 tokens. However, your messages resulted in 190000."
            return Refusal(400, message, extra={"code": "context_length_exceeded", "param": "messages"})
        if fault.type == "no_credit":
            message = "You exceeded your current quota, please check your plan and billing details."
            return Refusal(429, message, type="insufficient_quota", extra={"code": "insufficient_quota"})
        return Refusal(fault.status, message or USUAL[fault.status][1], fault.type, fault.headers)

    def error_body(self, refusal: Refusal) -> Any:
        kind = refusal.type or USUAL[refusal.status][0]
        return {"error": {"message": refusal.message, "type": kind, "param": None, "code": None, **refusal.extra}}
