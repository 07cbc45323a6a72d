"""Rebuilds a request from the content that its key is a hash of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from m3i.ledger.request import FORMAT, Block, Message, ModelRequest


class TurnContent(BaseModel):
    """One message of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str
    text: list[str]


class RequestContent(BaseModel):
    """The JSON form of `ModelRequest.content()`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    provider: str
    model: str
    system: list[str]
    messages: list[TurnContent]
    schema_: dict[str, Any] | None
    max_tokens: int
    temperature: int | float | None
    options: dict[str, Any]
    replicate: int


def request_from(content: Mapping[str, Any]) -> ModelRequest:
    """Returns the request with this content, without its marks for the provider's cache.

    Raises:
        ValueError: The content does not have this version's form.
    """
    if content.get("format") != FORMAT:
        raise ValueError(f"the request has format {content.get('format')!r}; this version of M3I reads {FORMAT}")
    read = RequestContent.model_validate({("schema_" if k == "schema" else k): v for k, v in content.items()})
    return ModelRequest(
        provider=read.provider,
        model=read.model,
        system=tuple(Block(text=text) for text in read.system),
        messages=tuple(Message(role=m.role, blocks=tuple(Block(text=t) for t in m.text)) for m in read.messages),
        schema=read.schema_,
        max_tokens=read.max_tokens,
        temperature=content["temperature"],  # as it was written: 0 and 0.0 give different keys
        options=read.options,
        replicate=read.replicate,
    )
