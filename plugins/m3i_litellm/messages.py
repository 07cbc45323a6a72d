"""A request as arguments of `litellm.acompletion`, and its response as a reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3i.ledger.request import Block, ModelRequest, Reply, Stop, Transient, Usage
from m3i.llm.models import family_of

STOPS = {"stop": Stop.END, "length": Stop.MAX_TOKENS, "content_filter": Stop.REFUSAL}
REQUEST_ID = ("llm_provider-x-request-id", "llm_provider-request-id", "x-request-id", "request-id")


def call_arguments(request: ModelRequest) -> dict[str, Any]:
    """The arguments, without key and timeout."""
    marked = family_of(request.model) == "claude"  # other providers cache automatically
    system = _content(request.system, marked)
    arguments: dict[str, Any] = {
        "model": request.model,
        "messages": [
            *([{"role": "system", "content": system}] if system else []),
            *({"role": m.role, "content": _content(m.blocks, marked)} for m in request.messages),
        ],
        "max_tokens": request.max_tokens,
        "num_retries": 0,
        "max_retries": 0,
        "drop_params": False,
        "caching": False,
        "stream": False,
    }
    if request.temperature is not None:
        arguments["temperature"] = request.temperature
    if request.schema is not None:
        named = {"name": "reply", "schema": dict(request.schema), "strict": True}
        arguments["response_format"] = {"type": "json_schema", "json_schema": named}
    return arguments | dict(request.options)


def _content(blocks: tuple[Block, ...], marked: bool) -> str | list[dict[str, Any]]:
    """One text, which every server accepts; for Claude its parts, with the ends of cached prefixes marked."""
    if not marked:
        return "".join(block.text for block in blocks)
    return [
        {"type": "text", "text": block.text, **({"cache_control": {"type": "ephemeral"}} if block.cache else {})}
        for block in blocks
        if block.text
    ]


def read_response(response: Any) -> Reply:
    """Returns the reply in a response. Raises Transient if it is not a completion."""
    try:
        body = response.model_dump(mode="json", exclude_none=True)
        choice = body["choices"][0]
        message = choice["message"]
        refused = message.get("refusal") or (message.get("provider_specific_fields") or {}).get("refusal")
        return Reply(
            text=message.get("content") or "",
            stop=Stop.REFUSAL if refused else STOPS.get(choice["finish_reason"], Stop.OTHER),
            usage=_usage(body["usage"]),
            model=str(body.get("model") or ""),
            request_id=_request_id(response, body),
            raw=body,
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise Transient("litellm: the response is not a completion", status=200, maybe_billed=True) from None


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Prompt tokens as litellm reports them include the cached parts."""
    details = usage.get("prompt_tokens_details") or {}
    read = int(details.get("cached_tokens") or usage.get("cache_read_input_tokens") or 0)
    written = int(usage.get("cache_creation_input_tokens") or details.get("cache_creation_tokens") or 0)
    return Usage(
        input_tokens=max(0, int(usage["prompt_tokens"]) - read - written),
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=int(usage["completion_tokens"]),
    )


def _request_id(response: Any, body: Mapping[str, Any]) -> str:
    hidden = getattr(response, "_hidden_params", None) or {}
    headers = hidden.get("additional_headers") or {}
    return next((str(headers[name]) for name in REQUEST_ID if headers.get(name)), str(body.get("id", "")))
