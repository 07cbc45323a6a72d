"""A grammar that lets a model write one JSON value of a schema, bounded in length.

The library's own converter (`llama_cpp.llama_grammar`) does not bound numbers: `0.0000...` goes on until the length
limit, and small models write exactly that. Here every string, list and number is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CHARACTER = r"""[^"\\\x00-\x1F\x7F] | "\\" ["\\/bfnrt]"""
"""A character of a JSON string. No `\\u`: it can write half of a surrogate pair, and every character can be written as
itself."""
INTEGER = '( "0" | [1-9] [0-9]{0,4} )'
SHARE = '( "0." [0-9]{1,2} | "0" | "1" | "1.0" )'
"""Every number of these schemas is a share from 0 to 1."""


def grammar_of(schema: Mapping[str, Any], limits: Mapping[str, int]) -> str:
    """GBNF of the values of a schema, with properties in the schema's order and the spaces that `json.dumps` writes.

    Args:
        schema: A schema as made by m3i.llm.schema.wire_schema; integers are ≥ 0 and below 100,000, numbers are shares.
        limits: Property → maximum characters of a text (below 2000), or maximum items of a list; every text and list
            needs one.
    """
    rules: dict[str, str] = {"char": CHARACTER}
    rules["root"] = _value(schema, "", limits, rules)
    return "\n".join(f"{name} ::= {rule}" for name, rule in rules.items())


def _value(schema: Mapping[str, Any], name: str, limits: Mapping[str, int], rules: dict[str, str]) -> str:
    """The right-hand side for one schema. Repeated parts become separate rules: llama.cpp limits what it unrolls."""
    if "enum" in schema:
        return f"( {' | '.join(_literal(json.dumps(value)) for value in schema['enum'])} )"
    if "anyOf" in schema:
        return f"( {' | '.join(_value(choice, name, limits, rules) for choice in schema['anyOf'])} )"
    match schema["type"]:
        case "object":
            pairs = (
                f"{_literal(json.dumps(key) + ': ')} {_value(value, key, limits, rules)}"
                for key, value in schema["properties"].items()
            )
            return f'"{{" {_literal(", ").join(f" {pair} " for pair in pairs)} "}}"'
        case "array":
            rules[f"{name}-item"] = _value(schema["items"], name, limits, rules)
            return _array(f"{name}-item", limits[name])
        case "string":
            return r'"\""' + f" char{{0,{limits[name]}}} " + r'"\""'
        case "integer":
            return INTEGER
        case "number":
            return SHARE
        case "null":
            return '"null"'
        case other:
            raise ValueError(f"no grammar for the type {other!r} of {name!r}")


def _array(item: str, limit: int) -> str:
    return '"[]"' if limit == 0 else f'"[" ( {item} ( ", " {item} ){{0,{limit - 1}}} )? "]"'


def _literal(text: str) -> str:
    """A text as GBNF writes it; JSON's escapes are the same."""
    return json.dumps(text)
