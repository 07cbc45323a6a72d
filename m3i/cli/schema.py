"""`m3i schema`: what validates a file anywhere, without M3I."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from m3i.errors import M3IError

if TYPE_CHECKING:
    from pydantic import BaseModel

FILES = ("result", "sweep")


def schema_command(arguments: list[str]) -> None:
    """m3i schema result|sweep: the fields of result.json or sweep.json as a JSON Schema."""
    if len(arguments) != 1 or arguments[0] not in FILES:
        raise M3IError(f"usage: m3i schema {'|'.join(FILES)} (the JSON Schema of result.json or of sweep.json)")
    print(json.dumps(json_schema(arguments[0]), indent=2, ensure_ascii=False))


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a file, with the meaning of every field as its description.

    Args:
        name: `result` or `sweep`.
    """
    from pydantic.json_schema import GenerateJsonSchema

    class Untitled(GenerateJsonSchema):
        """Leaves out titles that only repeat a field's name."""

        def field_title_should_be_set(self, schema: object) -> bool:
            return False

    schema = model_of(name).model_json_schema(schema_generator=Untitled)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": f"{name}.json"}


def model_of(name: str) -> type[BaseModel]:
    """The model of a file, `result` or `sweep`."""
    if name == "result":
        from m3i.results.schema import Result

        return Result
    from m3i.sweep.schema import Sweep

    return Sweep
