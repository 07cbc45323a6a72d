"""The result of one arm: everything the report shows, as one JSON document.

`build_result` turns the stages' artifacts into a dictionary of JSON values; `result.json` is that
dictionary, and the report page and the terminal summary read nothing else. Its fields are declared in
m3i.results.schema (docs/schema.md); docs/agreement.md explains how to read those on observers and judges.
"""

from m3i.results.build import FORMAT, RunArtifacts, build_result, to_json

__all__ = ["FORMAT", "RunArtifacts", "build_result", "to_json"]
