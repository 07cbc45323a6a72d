"""Does a request validate against the SDK's own request types? Unknown keys and coercions are refused."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pydantic
from pydantic import TypeAdapter
from pydantic_core import SchemaValidator


def closed(schema: Any) -> Any:
    """A pydantic core schema whose dictionaries forbid unknown keys and whose iterables are checked at once."""
    if isinstance(schema, dict):
        found = {key: value if key == "metadata" else closed(value) for key, value in schema.items()}
        if found.get("type") in ("typed-dict", "model-fields"):
            found["extra_behavior"] = "forbid"
        elif found.get("type") == "generator":
            found["type"] = "list"
        return found
    if isinstance(schema, (list, tuple)):
        return type(schema)(closed(item) for item in schema)
    return schema


@cache
def validator(request_type: Any) -> SchemaValidator:
    """Of a TypedDict or a pydantic model."""
    return SchemaValidator(closed(TypeAdapter(request_type).core_schema))


def complaint(request_type: Any, body: Any) -> str:
    """What is wrong with a body; empty if nothing."""
    try:
        validator(request_type).validate_json(json.dumps(body), strict=True)
    except pydantic.ValidationError as error:
        lines = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        return "; ".join(list(lines)[:5])
    return ""
