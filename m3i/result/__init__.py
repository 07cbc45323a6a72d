"""The result of one arm: everything the report shows, as one JSON document.

`build_result` turns the stages' artifacts into a dictionary of JSON values; `result.json` is that
dictionary, and the report page and the terminal summary read nothing else. Numbers are not
rounded here. Sections:

| section | holds |
|---|---|
| `format`, `m3i`, `created`, `command` | version of this layout, of M3I, when and how it was run |
| `verdict` | `kind` (improved, worse, undecided, sham, none), `title`, `asked`, `found`, `sure`, `sentence`, `judge` |
| `judges` | one entry a judge: counts, sign test, mean score, power, order effects (m3i.result.comparisons) |
| `judge_agreement` | pairs of judges: agreement and Cohen's kappa |
| `accuracy` | base, tuned, difference with paired interval, McNemar (m3i.result.comparisons) |
| `problems` | counts, and one row a held-out problem and generation seed with both answers and all verdicts |
| `target`, `parameters`, `layers` | the model; on disk → active → trained; scores, selection (m3i.result.model) |
| `training`, `certificates`, `base_model` | pairs, curve, what moved; what arrived in llama.cpp |
| `telemetry`, `observers`, `examples`, `agreement` | measured and found in the train traces (m3i.result.traces) |
| `stages`, `costs` | how each stage was answered; time and money |
| `caveats`, `next` | limits and next steps derived from this run's own facts (m3i.result.caveats) |
| `config`, `overrides`, `versions`, `ids` | what it takes to repeat the run |
"""

from m3i.result.build import FORMAT, build_result, to_json, write_run
from m3i.result.words import summary_lines

__all__ = ["FORMAT", "build_result", "summary_lines", "to_json", "write_run"]
