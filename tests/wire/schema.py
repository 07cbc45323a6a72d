"""A JSON value for a JSON schema: the subset that providers' structured output knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Chooser = Callable[[str, dict[str, Any]], Any]
"""(name of the field, its schema) → a value, or MISSING for the plainest one."""

MISSING = object()


class SchemaFiller:
    """Walks a schema and asks a chooser at every named field."""

    def __init__(self, schema: dict[str, Any], choose: Chooser) -> None:
        self.root, self.choose = schema, choose

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Follows `$ref`."""
        while "$ref" in schema:
            found: Any = self.root
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def variants(self, schema: dict[str, Any]) -> list[dict[str, Any]]:
        """The alternatives of `anyOf`, null last."""
        found = [self.resolve(s) for s in schema.get("anyOf", schema.get("oneOf", []))]
        return sorted(found, key=lambda s: s.get("type") == "null")

    def fill(self, schema: dict[str, Any] | None = None, name: str = "") -> Any:
        """The value of one field."""
        schema = self.resolve(self.root if schema is None else schema)
        chosen = self.choose(name, schema)
        if chosen is not MISSING:
            return chosen
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        if variants := self.variants(schema):
            return self.fill(variants[0], name)
        if "allOf" in schema:
            return self.fill(schema["allOf"][0], name)
        kind = schema.get("type", "object")
        kind = next((k for k in kind if k != "null"), "null") if isinstance(kind, list) else kind
        return self.plainest(str(kind).lower(), schema, name)

    def plainest(self, kind: str, schema: dict[str, Any], name: str) -> Any:
        """The plainest value of a type within its bounds."""
        if kind == "object":
            return {key: self.fill(value, key) for key, value in schema.get("properties", {}).items()}
        if kind == "array":
            return [self.fill(schema.get("items", {}), name) for _ in range(int(schema.get("minItems", 0)))]
        if kind in ("integer", "number"):
            return self.number(kind, schema)
        if kind == "string":
            return f"about {name or 'it'}".ljust(int(schema.get("minLength", 0)), ".")[: schema.get("maxLength")]
        return {"boolean": False, "null": None}[kind]

    def number(self, kind: str, schema: dict[str, Any]) -> float | int:
        """Near the middle of the bounds."""
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if low is not None and high is not None:
            value = (low + high) / 2
        else:
            value = low + 1 if low is not None else high - 1 if high is not None else 1
        return int(value) if kind == "integer" else value
