"""The result of one arm: everything the report shows, as one JSON document.

`build_result` turns the stages' artifacts into a dictionary of JSON values; `result.json` is that
dictionary, and the report page and the terminal summary read nothing else. Its fields are declared in
m3i.results.schema (docs/schema.md); docs/agreement.md says how to read those on observers and judges.
"""

from m3i.results.build import FORMAT, build_result, to_json, write_run
from m3i.wording.run import summary_lines

__all__ = ["FORMAT", "build_result", "summary_lines", "to_json", "write_run"]
