"""The result of one arm: everything the report shows, as one JSON document.

`build_result` turns the stages' artifacts into a dictionary of JSON values; `result.json` is that
dictionary, and the report page and the terminal summary read nothing else. Numbers are not
rounded here; docs/agreement.md says how to read those on observers and judges. Sections:

| section | holds |
|---|---|
| `format`, `m3i`, `created`, `command` | version of this layout, of M3I, when and how it was run |
| `verdict` | `kind` (improved, worse, undecided, sham, none), `title`, `asked`, `found`, `sure`, `sentence`, `judge` |
| `arm` | `name`, `kind`, `draw`, `draw_seed`, training `seed`; the `attributed` layers, `candidates`; |
| | `n_sets` to draw from |
| `judges` | one entry a judge: counts, sign test, mean score, power, order effects (m3i.results.judges); |
| | `length`, `self_consistency`, `canaries` (m3i.results.judges); `calls`, the model behind it |
| `judge_agreement` | pairs of judges: agreement and Cohen's kappa |
| `accuracy` | base, tuned, difference with paired interval, McNemar (m3i.results.judges) |
| `problems` | counts, and one row a held-out problem and generation seed with both answers and all verdicts |
| `target`, `parameters`, `layers` | the model; on disk → active → trained; scores, selection (m3i.results.model) |
| `training`, `certificates`, `base_model` | pairs, curve, what moved; what arrived in llama.cpp |
| `telemetry`, `observers`, `examples` | measured and found in the train traces (m3i.results.traces); of each observer |
| | `accuracy` and `citations` (m3i.audits.accuracy) and `calls`, the model behind it |
| `agreement` | every two observers: traces, tokens, layers, each against chance (m3i.audits.agreement) |
| `errors` | whether observers make the same mistakes, and how many they are worth (m3i.audits.shared_errors) |
| `places` | observers' places against the checker's, where the panel has one (m3i.audits.accuracy) |
| `families` | judges and observers that share a model family with another part of the run |
| `stages`, `costs` | how each stage was answered; time, calls and money, the ledger's tally (m3i.results.costs) |
| `caveats`, `next` | limits and next steps derived from this run's own facts (m3i.wording.caveats) |
| `config`, `overrides`, `versions`, `ids` | what it takes to repeat the run |
"""

from m3i.results.build import FORMAT, RunArtifacts, build_result, to_json

__all__ = ["FORMAT", "RunArtifacts", "build_result", "to_json"]
