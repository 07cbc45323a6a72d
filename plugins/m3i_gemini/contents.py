"""A request as parameters of Gemini's generateContent, and its response as a reply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from m3i.ledger.request import Block, ModelRequest, Reply, Stop, Transient, Usage

ROLES = {"user": "user", "assistant": "model"}
STOPS = {"STOP": Stop.END, "MAX_TOKENS": Stop.MAX_TOKENS}
REFUSALS = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "MODEL_ARMOR"}
)
"""Finish reasons with which the provider withholds an answer."""


def contents(request: ModelRequest) -> list[dict[str, Any]]:
    """The turns. Gemini caches shared prefixes automatically, so nothing is marked."""
    return [{"role": ROLES[message.role], "parts": parts(message.blocks)} for message in request.messages]


def parts(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    """Blocks as parts of one content."""
    return [{"text": block.text} for block in blocks if block.text]


def config(request: ModelRequest) -> dict[str, Any]:
    """All other parameters of a request."""
    found: dict[str, Any] = {"max_output_tokens": request.max_tokens}
    if system := parts(request.system):
        found["system_instruction"] = {"parts": system}
    if request.temperature is not None:
        found["temperature"] = request.temperature
    if request.schema is not None:
        found |= {"response_mime_type": "application/json", "response_json_schema": dict(request.schema)}
    if "thinking_budget" in request.options:
        found["thinking_config"] = {"thinking_budget": request.options["thinking_budget"]}
    elif "thinking_level" in request.options:
        found["thinking_config"] = {"thinking_level": request.options["thinking_level"].upper()}
    return found


def read_response(response: Any, model: str) -> Reply:
    """Returns the reply in a response's JSON. Raises Transient if it is not a GenerateContentResponse.

    Args:
        response: JSON values with the API's own names.
        model: The model that was asked, for a response that does not name one.
    """
    try:
        candidates = response.get("candidates") or [{}]
        feedback = response.get("promptFeedback") or {}
        if "candidates" not in response and "blockReason" not in feedback:
            raise unreadable()
        pieces = (candidates[0].get("content") or {}).get("parts") or []
        return Reply(
            text="".join(piece.get("text") or "" for piece in pieces if not piece.get("thought")),
            stop=_stop(candidates[0].get("finishReason"), feedback.get("blockReason")),
            usage=_usage(response.get("usageMetadata") or {}),
            model=str(response.get("modelVersion") or model),
            request_id=str(response.get("responseId") or ""),
            raw=response,
        )
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise unreadable() from error


def _stop(finish: str | None, block: str | None) -> Stop:
    if block or finish in REFUSALS:
        return Stop.REFUSAL
    return STOPS.get(finish or "", Stop.OTHER)


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Gemini counts cached tokens as part of the prompt, and thoughts separately from the answer."""
    cached = int(usage.get("cachedContentTokenCount") or 0)
    return Usage(
        input_tokens=max(0, int(usage.get("promptTokenCount") or 0) - cached),
        cache_read_tokens=cached,
        output_tokens=int(usage.get("candidatesTokenCount") or 0) + int(usage.get("thoughtsTokenCount") or 0),
    )


def unreadable() -> Transient:
    """The error for a response of status 200 that holds no answer."""
    return Transient("Gemini: the response is not the JSON of an answer", status=200, maybe_billed=True)
