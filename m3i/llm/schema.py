"""Replies as JSON: the schema that providers accept, and strict parsing of what comes back.

Native structured output differs between providers. All of them accept objects with every property required and no
others, `enum`, `anyOf` with null, and descriptions, but neither `$ref` nor bounds. Bounds are checked here, after
parsing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from m3i.llm.panel import ReplyError

MAX_REPLY_CHARS = 400_000
DROPPED = frozenset(
    {"title", "default", "$defs", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength",
     "maxLength", "minItems", "maxItems", "pattern", "format"}
)  # fmt: skip
"""Schema keywords left out: some provider refuses them, or only pydantic uses them."""

M = TypeVar("M", bound=BaseModel)


def wire_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the pydantic model's JSON schema in a form that every provider's structured output accepts."""
    schema = model.model_json_schema()
    return _plain(schema, schema.get("$defs", {}))


def _plain(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        there = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**there, **{k: v for k, v in schema.items() if k != "$ref"}}
    result: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "properties":
            result[name] = {k: _plain(v, definitions) for k, v in value.items()}
        elif name == "anyOf":
            result[name] = [_plain(v, definitions) for v in value]
        elif name == "items":
            result[name] = _plain(value, definitions)
        elif name not in DROPPED:
            result[name] = value
    if result.get("type") == "object":
        result.pop("description", None)  # the class's docstring, which the language model must not see
        result["required"] = list(result["properties"])
        result["additionalProperties"] = False
    return result


def read_reply(text: str, model: type[M]) -> M:
    """Parses a reply that must be one JSON object and nothing else.

    Raises:
        ReplyError: The reply is anything else. The message says what is wrong and quotes nothing from the reply.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise ReplyError(f"the reply is longer than {MAX_REPLY_CHARS} characters")
    try:
        text.encode("utf-8")
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # an escape can hide a lone surrogate
    except ReplyError:
        raise
    except UnicodeEncodeError:
        raise ReplyError("the reply holds half of a surrogate pair, which is no character") from None
    except RecursionError:
        raise ReplyError("the reply is nested too deeply") from None
    except ValueError as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ReplyError(f"the reply is not one bare JSON object{where}") from None
    try:
        return model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ReplyError(_explained(error)) from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ReplyError("an object of the reply holds a key twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ReplyError("the reply holds NaN or Infinity, which JSON does not have")


def _explained(error: ValidationError) -> str:
    """Describes the first few faults by their place, without quoting the reply."""
    words = []
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    for fault in faults[:4]:
        if fault["type"] == "extra_forbidden":
            words.append(f"{_place(fault['loc'][:-1])} has a property that the schema does not have")
        else:
            words.append(f"{_place(fault['loc'])}: {fault['msg']}")
    more = f"; and {len(faults) - 4} more" if len(faults) > 4 else ""
    return "; ".join(words) + more


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "the reply"


def tidy(text: str, limit: int) -> str:
    """Returns a model's text on one line, without control characters, cut to `limit` characters."""
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"
