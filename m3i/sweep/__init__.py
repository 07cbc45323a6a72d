"""A sweep: arms of one experiment, run by any launcher, compared by stored results alone.

    <sweep>/plan.json                    what was asked before the first result: endpoint, margin, arms, seeds
    <sweep>/<arm>/seed-<n>/result.json   one arm's run (m3i.results), with report.html and progress.jsonl
    <sweep>/sweep.json, report.html      what `m3i compare` makes of them
    <sweep>/results.parquet, results.csv one row a judgement

`sweep.json` holds JSON values, not rounded; the page and the terminal read nothing else. A number that
could not be computed is null, and a `why` beside it says so. An *estimate* is {value, low, high, level,
n, method, degenerate} (m3i.statistics.Estimate). Sections:

| section | holds |
|---|---|
| `format`, `m3i`, `created` | version of this layout, of M3I; when it was compared |
| `name`, `command`, `overrides` | name of the folder; how the sweep was run |
| `plan` | `registered`: first registration of plan.json, null without one; `registrations`: their number; |
| | `deviations` (sentences); `jobs`: {planned, done, failed, missing} |
| `verdict` | `kind` (better, worse, not_better, not_different, untested), `title`, `endpoint`, `asked`, `found`, |
| | `sure`, `sentence` (for everyone), `null` (what a null shows; empty otherwise), `harm` (a sentence where the |
| | mean over the tested arms, or each of them, lies below the base model, shown or not; empty otherwise) |
| `design` | `target`, `n_layers`, `attributed`, `candidates`, `k`; `n_sets` other sets, `n_controls` in the test of |
| | `n_controls_planned`, `enumerated` (all other sets ran), `p_floor`; `seeds` in the test of `planned_seeds`, |
| | `generation_seeds`, `n_generation_seeds`; `n_problems`, `n_left_out` of the primary endpoint; `incomplete`: |
| | [{arm, missing: seeds, entered}]; `unregistered` random arms; `other_attributed`: those that were derived |
| | from another attributed set, and so are not tested; `primary`, `judge`, `alternative`, `alpha`, |
| | `margin`, `effect`, `level`, `power` as registered |
| `primary` | the registered endpoint, see below |
| `secondary` | [every other endpoint, the same, with `adjusted` p, `significant`, and `same_as`: name of an endpoint |
| | that it restates on another scale and with which it is not tested again] |
| `arms` | [one row an arm, see below], the attributed one first |
| `contrast` | null, or arms that exclude the attributed layers: `endpoint`, `arms` (places), `compared` (complete |
| | ones), `difference` of the attributed arm from their mean (estimate), `why`, `words`; never a p |
| `variance` | [{endpoint, draws, seeds, problems, generation_seeds, total, components: [{name, value, raw, levels, |
| | why, share}], why}] over the random arms of the test |
| `judges` | `panel`: {alias: {judge, model, family, n, n_equal, n_judged, counts, missing_rate, flip_rate, |
| | n_decided_ballots, first_shown_share, self_consistency: null or {n_ballots, value}, length: {all, |
| | equally_right} (length rows), canaries: {n, obeyed}}} over all arms; `agreement`: [{judges: [one, other], n, |
| | agreement, kappa}]; `verifier`: [{judge, n, agreement, kappa}] with the outcome that right and wrong answers |
| | give; `families`: as in a run |
| `checks` | [{name, passed: true, false, or null where there was nothing to check, words}] |
| `problems` | [{problem_id, prompt, answer, base: share right, attributed: {accuracy, score}, controls: {accuracy, |
| | score}, difference, left_out}]; `score` and `difference` are of the primary endpoint |
| `costs` | `arms`: [{arm, jobs, own_s, time_s}]; `own_s`, `shared_s`, `made_s`, `alone_s`, `saved_s`, `hits_s`; |
| | `stages`: [{stage, made_s}]; `money`: null or what the calls behind these results cost, {cost_usd, calls, |
| | unpriced, last: null or what the last command paid, {paid_usd, calls, unpriced, reused, saved_usd, |
| | uncertain_usd}} |
| `caveats` | [{name, title, text, weight: major or minor}] |
| `next` | [{title, text, command}], what would settle it; `command` may be empty |
| `failures` | [{arm, seed, folder, state: failed, unreadable, missing or incomparable, error}] |
| `run` | the whole result.json of the attributed arm at its first training seed: layers, training, traces, ... |

An endpoint (`primary`, `secondary`):

| field | is |
|---|---|
| `name`, `kind`, `judge`, `words` | `score:<judge>` or `accuracy`; score or accuracy; the subject of a sentence |
| `base` | the base model's T: ½ for a score, its share of right answers for accuracy |
| `n_problems`, `n_left_out`, `left_out` | problems compared; those with a missing verdict in some job of the test |
| | (attributed arm and controls at the seeds of the test), and their ids |
| `tie_rate` | share of the attributed arm's comparisons that decide nothing |
| `attributed`, `controls`, `others` | places: {arm, kind, layers, seeds, n, t, by_seed: [{seed, t}]}; one, those of |
| | the test, and all other arms (excluding, all, shuffled, sham, random ones that are not tested), on `n` of the |
| | problems |
| `controls_mean` | mean T of the controls |
| `test` | null, or {p, floor, n_controls, n_extreme, rank, percentile, alternative, alpha, significant, |
| | controls_for_alpha}; `why` says why it is null, a failed check of the tested arms or of the sham arm included |
| `effect` | null, or {difference (estimate), se, df, sd_controls, standardised, n_seeds} |
| `equivalence` | `margin`; `base`: of the attributed arm and the base model, `controls`: of its difference from the |
| | controls: each null or {p_lower, p_upper, p, equivalent, low, high, margin, alpha, neutral}; `base_why`, ...; |
| | `too_wide`: the margin is at least `power.effect.shift`, so that `equivalent` does not show its absence |
| `training` | null, or the mean over the tested arms against the base model: {n_arms, n_below (arms whose own mean |
| | is lower), difference (estimate over problems)} |
| `against_base` | null, or the attributed arm, problems and seeds of the test: {wins, losses, undecided, p} |
| `shuffled` | null, or the attributed arm minus the shuffled one: {seeds, difference (estimate)} |
| `power` | `power`, `alpha`, `tie_rate`; `effect`: the user's, {share, tie_rate, shift, sd, why}; `base`: {n, sd, |
| | detectable, required_problems, required_problems_sign, why}; `controls`: {n_controls, between, within, |
| | detectable, power_at_effect, required_controls, required_problems, required_seeds, why}; a null requirement |
| | without a `why` is out of reach: no number of that alone is enough |

An arm (`arms`), pooled over its training seeds with the problem as the unit:

| field | is |
|---|---|
| `arm`, `kind`, `draw`, `layers`, `seeds`, `folders` | name, kind of arm, number of the draw, layers trained, ... |
| `tested` | whether it is the attributed arm or a control of the test |
| `shared_with_attributed` | how many of its layers are attributed ones |
| `zero_update`, `n_pairs`, `n_swapped` | sham; preference pairs, and how many of them are swapped |
| `trained`, `trained_by_seed` | trained parameters; `trained` is null where they differ between seeds |
| `judges` | {alias: {n, counts: {tuned, base, tie, split, missing}, problems: {wins, losses, undecided}, sign_test: |
| | {wins, losses, p, share, low, high, level}, mean_score (estimate), length (length row)}} |
| `panel` | over all judges: {judges, mean_score (estimate), bootstrap (estimate)} |
| `accuracy` | {n, base, tuned, difference (estimate), fixed, broken, mcnemar: {fixed, broken, p} over problems} |
| `t` | {endpoint's name: {t, n, by_seed: [{seed, t}]}} over all its seeds, on those `n` of the endpoint's |
| | problems for which it has every verdict |
| `live_share`, `certificates_passed` | smallest live share of its adapters in llama.cpp; all certificates passed |

A length row: {n problems, rho, p of Spearman's correlation of extra tokens and outcome, `extra_tokens` on
average, `adjusted`: null or the mean score at equal length (estimate)}.
"""
