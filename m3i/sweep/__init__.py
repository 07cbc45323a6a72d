"""A sweep: arms of one experiment, run by any launcher, compared by stored results alone.

    <sweep>/plan.json                    what was asked before the first result: endpoint, margin, arms, seeds
    <sweep>/<arm>/seed-<n>/result.json   one arm's run (m3i.result), with report.html and progress.jsonl
    <sweep>/sweep.json, report.html      what `m3i compare` makes of them
    <sweep>/results.parquet, results.csv one row a judgement

`sweep.json` holds JSON values, not rounded; the page and the terminal read nothing else. A number that
could not be computed is null, and a `why` beside it says so. Sections:

| section | holds |
|---|---|
| `format`, `m3i`, `created`, `command`, `overrides` | version of this layout (1), of M3I; when and how the sweep was run |
| `plan` | `registered` (the first registration of plan.json), `deviations` (sentences), `jobs` planned / done / failed |
| `verdict` | `kind` (better, not_better, untested), `title`, `asked`, `found`, `sure`, `sentence`, `null` |
| `design` | problems, left out, generation and training seeds, controls, population of sets, p floor |
| `primary` | the registered endpoint: attributed T, control Ts, test, effect, equivalence, power and what it would take |
| `secondary` | the same test for each other endpoint, with `adjusted` p and `significant` |
| `arms` | one row an arm: layers, parameters, per judge and accuracy against the base model, T by training seed |
| `contrast` | arms that exclude the attributed layers, without a p; null where none ran |
| `variance` | components of variance among random arms, by endpoint |
| `judges` | order flips, length, agreement of judges with each other and with the verifier, families |
| `checks` | what must be equal in all arms, and is or is not: `name`, `passed`, `words` |
| `problems` | one row a held-out problem: base, attributed and control scores |
| `costs` | time and money by arm, and what the store saved |
| `caveats`, `next` | as in a run, from this sweep's facts |
| `run` | result.json of the attributed arm at its first training seed: layers, training, certificates, traces |
| `failures` | arm, seed, error |
"""
