"""A sweep: arms of one experiment, run by any launcher, compared by stored results alone.

    <sweep>/plan.json                    what was asked before the first result: endpoint, margin, arms, seeds
    <sweep>/<arm>/seed-<n>/result.json   one arm's run (m3i.results), with report.html and progress.jsonl
    <sweep>/sweep.json, report.html      what `m3i compare` makes of them
    <sweep>/results.parquet, results.csv one row per judgement

The fields of sweep.json are declared in m3i.sweep.schema (docs/schema.md); the page and the terminal read nothing else.
"""
