"""A request as parameters of Anthropic's Messages API, and its response as a reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3i.ledger.request import Block, ModelRequest, Reply, RequestError, Stop, Transient, Usage

MAX_MARKS = 4
"""Maximum number of blocks per request that may end a cached prefix."""

STOPS = {
    "end_turn": Stop.END,
    "stop_sequence": Stop.END,
    "max_tokens": Stop.MAX_TOKENS,
    "model_context_window_exceeded": Stop.MAX_TOKENS,
    "refusal": Stop.REFUSAL,
}


def message_params(request: ModelRequest) -> dict[str, Any]:
    """Parameters of `messages.create`. Raises RequestError for a temperature, which the API no longer accepts."""
    if request.temperature is not None:
        raise RequestError(f"temperature = {request.temperature}: Anthropic's API takes none; leave it null")
    blocks = [*request.system, *(block for message in request.messages for block in message.blocks)]
    marks = [i for i, block in enumerate(blocks) if block.cache and block.text]
    # The first prefix is shared most widely; of the others the longest save most.
    kept = set(marks if len(marks) <= MAX_MARKS else [marks[0], *marks[1 - MAX_MARKS :]])
    numbered = iter(enumerate(blocks))
    params: dict[str, Any] = {"model": request.model, "max_tokens": request.max_tokens}
    if system := _blocks(len(request.system), numbered, kept):
        params["system"] = system
    params["messages"] = [
        {"role": message.role, "content": _blocks(len(message.blocks), numbered, kept)} for message in request.messages
    ]
    return params | _options(request)


def _blocks(count: int, numbered: Any, kept: set[int]) -> list[dict[str, Any]]:
    """The next blocks as content, without empty ones, which the API refuses."""
    taken: list[tuple[int, Block]] = [next(numbered) for _ in range(count)]
    return [
        {"type": "text", "text": block.text, **({"cache_control": {"type": "ephemeral"}} if i in kept else {})}
        for i, block in taken
        if block.text
    ]


def _options(request: ModelRequest) -> dict[str, Any]:
    """Structured output, effort and thinking."""
    from anthropic import transform_schema

    params: dict[str, Any] = {}
    config: dict[str, Any] = {}
    if request.schema is not None:
        config["format"] = {"type": "json_schema", "schema": transform_schema(dict(request.schema))}
    if "effort" in request.options:
        config["effort"] = request.options["effort"]
    if config:
        params["output_config"] = config
    if "thinking_budget" in request.options:
        params["thinking"] = {"type": "enabled", "budget_tokens": request.options["thinking_budget"]}
    elif "thinking" in request.options:
        params["thinking"] = {"type": request.options["thinking"]}
    return params


def read_message(message: Any, request_id: str) -> Reply:
    """Returns the reply in a response's JSON. Raises Transient if it is not a message."""
    try:
        return Reply(
            text="".join(block["text"] for block in message["content"] if block["type"] == "text"),
            stop=STOPS.get(message["stop_reason"], Stop.OTHER),
            usage=_usage(message["usage"]),
            model=str(message["model"]),
            request_id=request_id,
            raw=message,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise unreadable() from error


def _usage(usage: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=int(usage["input_tokens"]),
        cache_read_tokens=int(usage.get("cache_read_input_tokens") or 0),
        cache_write_tokens=int(usage.get("cache_creation_input_tokens") or 0),
        output_tokens=int(usage["output_tokens"]),
    )


def unreadable() -> Transient:
    """The error for a response of status 200 that holds no message."""
    return Transient("Anthropic: the response is not the JSON of a message", status=200, maybe_billed=True)
