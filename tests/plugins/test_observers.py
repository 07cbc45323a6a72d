"""The observers that need no key, on the arithmetic source and on traces of known surprise."""

import asyncio
import re

import numpy as np
import pytest
from m3i_arithmetic.expressions import parse_expression
from m3i_arithmetic.source import ArithmeticProblems, as_problem
from m3i_checker.observer import Checker
from m3i_surprisal.calibration import auroc, conformal_threshold, fold_of, smallest_pool
from m3i_surprisal.lines import score_lines, token_class
from m3i_surprisal.observer import Surprisal
from m3i_surprisal.suspects import LayerBaseline

from m3i.artifacts import Problem, Telemetry, Trace, Verification
from m3i.errors import ConfigError
from m3i.interfaces import AuditRequest

PROBLEM = as_problem(parse_expression("48+7*6-15=?"))


def spell(text, problem_id="p", trace_id="t", correct=False, surprisal=None, ends=True):
    """A trace of one token a character, with an end-of-sequence token."""
    n = len(text) + ends
    logprobs = [-0.01] * n
    for at, value in (surprisal or {}).items():
        logprobs[at] = -value
    return Trace(
        id=trace_id,
        problem_id=problem_id,
        sample=0,
        prompt_ids=(1,),
        completion_ids=tuple(ord(c) for c in text) + (2,) * ends,
        text=text,
        offsets=tuple((i, i + 1) for i in range(len(text))) + ((len(text), len(text)),) * ends,
        logprobs=tuple(logprobs),
        correct=correct,
        answer=None,
        truncated=not ends,
    )


def run(observer, items, source=None, telemetry=None):
    empty = np.zeros((2, 0))
    telemetry = telemetry or Telemetry(
        trace_ids=(),
        starts=(0,),
        moe_layers=(),
        lens_rank_LS=empty,
        lens_entropy_LS=empty,
        update_norm_LS=empty,
        attention_entropy_LS=empty,
        router_entropy_RS=empty,
        expert_load_RE=empty,
    )
    request = AuditRequest(
        items=items, source=source or ArithmeticProblems(), telemetry=telemetry, target=None, ledger=None
    )
    audit = asyncio.run(observer.audit(request))
    by_id = {t.id: t for _, t in items}
    for finding in audit.findings:
        trace = by_id[finding.trace_id]
        assert trace.text[finding.start : finding.end] == finding.quote != ""
        assert trace.offsets[finding.token_start][0] <= finding.start
        assert trace.offsets[finding.token_end - 1][1] >= finding.end
    assert set(audit.audited) | set(audit.missing) == set(by_id)
    assert not set(audit.audited) & set(audit.missing)
    return audit


# -- checker ----------------------------------------------------------------------------------


def check(text, ends=True):
    return run(Checker(), [(PROBLEM, spell(text, ends=ends))])


def test_a_right_completion_is_free_of_failures():
    audit = check(PROBLEM.solution)
    assert audit.findings == ()
    assert audit.audited == ("t",)


def test_the_first_wrong_step_is_quoted_and_corrected():
    (finding,) = check("7*6=42\n48+42=80\n80-15=65\nanswer 65\n").findings
    assert finding.quote == "48+42=80"
    assert finding.correction == "48+42=90"
    assert finding.kind == "arithmetic"
    assert finding.step == 2
    assert (finding.token_start, finding.token_end) == (7, 15)


def test_a_wrong_answer_after_right_steps_is_quoted():
    (finding,) = check("7*6=42\n48+42=90\n90-15=75\nanswer 57\n").findings
    assert (finding.quote, finding.correction, finding.step) == ("answer 57", "answer 75", 4)


def test_something_missing_is_quoted_by_the_line_before_it():
    (finding,) = check("7*6=42\n48+42=90\n", ends=False).findings
    assert finding.quote == "48+42=90\n"
    assert finding.correction is None
    audit = check("", ends=True)
    assert audit.missing["t"].endswith("the quote is empty; quote the failing text")


class AnswersAlone:
    """A source that compares the last number and knows no steps."""

    libraries = ()

    def draw(self):
        return (), ()

    def verify(self, problem, completion):
        numbers = re.findall(r"-?[\d,]+", completion)
        answer = numbers[-1].replace(",", "") if numbers else None
        return Verification(correct=answer == problem.answer, answer=answer)


def test_a_source_without_steps_has_its_answers_quoted():
    problem = Problem(id="p", prompt="?", answer="75")
    texts = {"wrong": "57 no, 57", "right": "75", "none": "no idea", "cut": "I thi", "rewritten": "it is 1,234"}
    items = [(problem, spell(text, trace_id=name, ends=name != "cut")) for name, text in texts.items()]
    audit = run(Checker(), items, AnswersAlone())
    (finding,) = audit.findings
    assert (finding.quote, finding.start, finding.kind) == ("57", 7, "wrong_answer")
    assert finding.reason == "the answer is 75, not 57"
    assert audit.audited == ("wrong", "right")
    assert "it ended by itself" in audit.missing["none"]
    assert "it was cut off" in audit.missing["cut"]
    assert "'1234' is not in the completion" in audit.missing["rewritten"]


# -- surprisal --------------------------------------------------------------------------------


def test_lines_are_scored_by_their_peak_or_as_a_whole():
    trace = spell("ab\n\ncd\n", surprisal={0: 1.0, 1: 2.0, 2: 5.0, 5: 0.5})
    by_token = score_lines(trace, "token")
    assert [(line.start, line.end, line.score, line.peak) for line in by_token] == [(0, 2, 5.0, 1), (4, 6, 0.5, 5)]
    assert [round(line.score, 2) for line in score_lines(trace, "line")] == [8.0, 0.52]


def test_token_classes():
    assert [token_class(x) for x in ("7", " 12", "ab", "\n", "=", " Ġ+")] == [
        "digit",
        "digit",
        "letter",
        "space",
        "other",
        "letter",
    ]


@pytest.mark.parametrize(("n", "rate", "rank"), [(9, 0.1, 9), (99, 0.1, 90), (19, 0.05, 19), (3, 0.5, 2)])
def test_the_threshold_is_the_conformal_quantile(n, rate, rank):
    values = list(np.random.default_rng(0).permutation(np.arange(1, n + 1)))
    assert conformal_threshold(values, rate) == rank
    assert smallest_pool(0.1) == 9
    assert conformal_threshold(values[: smallest_pool(rate) - 1], rate) == np.inf


def test_right_traces_are_flagged_no_more_often_than_stated():
    """Over many exchangeable draws a new right trace exceeds the threshold at the stated rate."""
    generator = np.random.default_rng(3)
    over = [generator.gamma(2) > conformal_threshold(generator.gamma(2, size=19), 0.1) for _ in range(4000)]
    assert np.mean(over) == pytest.approx(0.1, abs=0.015)


def test_auroc_counts_pairs():
    assert auroc([2, 3], [1, 2]) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert auroc([], [1]) is None


def pool(n_right=60, n_wrong=20, seed=0):
    """Right traces with moderate surprise anywhere, wrong ones with a large one in their second line."""
    generator = np.random.default_rng(seed)
    items = []
    for i in range(n_right + n_wrong):
        right = i < n_right
        text = "7*6=42\n48+42=90\n90-15=75\nanswer 75\n" if right else "7*6=42\n48+42=80\n80-15=65\nanswer 65\n"
        surprisal = {int(generator.integers(30)): float(generator.uniform(0, 2))}
        if not right:
            surprisal[13] = float(generator.uniform(2.5, 4))
        trace = spell(text, problem_id=f"p{i}", trace_id=f"t{i}", correct=right, surprisal=surprisal)
        items.append((PROBLEM, trace))
    return items


def test_the_line_that_surprised_the_model_is_quoted():
    items = pool()
    audit = run(Surprisal(), items)
    flagged = {f.trace_id: f for f in audit.findings}
    wrong = [t for _, t in items if not t.correct]
    assert sum(t.id in flagged for t in wrong) == 20
    second = [flagged[t.id] for t in wrong if flagged[t.id].quote == "48+42=80"]
    assert len(second) >= 17  # the first line's noise comes first in a few
    assert sum(t.correct and t.id in flagged for _, t in items) <= 12
    assert len(audit.audited) == 80
    assert "flags 20 of 20 wrong traces (recall 100%)" in audit.notes[1]
    assert "are flagged in that step" in audit.notes[3]
    assert run(Surprisal(), items) == audit


def test_the_figures_in_the_notes_are_those_of_the_findings():
    items = pool(seed=5)
    audit = run(Surprisal(false_positive_rate=0.3), items)
    correct = {t.id: t.correct for _, t in items}
    false = sum(correct[f.trace_id] for f in audit.findings)
    hits = len(audit.findings) - false
    assert f"flags {hits} of 20 wrong traces" in audit.notes[1]
    assert f"and {false} of 60 right ones" in audit.notes[1]
    assert f"precision {hits / len(audit.findings):.0%}" in audit.notes[1]


def test_a_trace_is_never_calibrated_by_its_own_problem():
    """Making one right trace extreme moves the thresholds of other folds alone."""
    items = pool(n_right=30, n_wrong=0)
    loud = items[0][1]
    louder = spell(loud.text, loud.problem_id, loud.id, correct=True, surprisal={3: 50.0})
    audit = run(Surprisal(), [(PROBLEM, louder), *items[1:]])
    assert any(f.trace_id == loud.id for f in audit.findings)
    fold = fold_of(loud.problem_id, 5)
    same_fold = [t.id for _, t in items[1:] if fold_of(t.problem_id, 5) == fold]
    before = {f.trace_id for f in run(Surprisal(), items).findings}
    after = {f.trace_id for f in audit.findings}
    assert before & set(same_fold) == after & set(same_fold)


def test_too_few_right_traces_leave_everything_missing():
    audit = run(Surprisal(false_positive_rate=0.1), pool(n_right=6, n_wrong=3))
    assert audit.findings == ()
    assert set(audit.missing) == {f"t{i}" for i in range(9)}
    assert "false_positive_rate=0.1 needs 9" in audit.missing["t0"]
    assert audit.notes == ("no threshold: too few right traces",)


def test_a_token_may_be_quoted_instead_of_its_line():
    audit = run(Surprisal(quote="token"), pool())
    assert {len(f.quote) for f in audit.findings} == {1}


def test_traces_without_logprobs_are_missing():
    items = pool()
    bare = Trace(**{**items[0][1].__dict__, "logprobs": ()})
    audit = run(Surprisal(), [(PROBLEM, bare), *items[1:]])
    assert audit.missing == {"t0": "0 log-probabilities for 36 tokens"}


def measured(items, bad_layer, n_layers=6):
    """Telemetry in which one layer makes the lens worse at token 13 of wrong traces, and later layers keep it so."""
    generator = np.random.default_rng(0)
    lengths = [len(t.completion_ids) for _, t in items]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rank = generator.poisson(3, size=(n_layers, starts[-1]))
    entropy = generator.normal(2, 0.2, size=(n_layers, starts[-1]))
    update = np.exp(generator.normal(0, 0.2, size=(n_layers, starts[-1])))
    for (_, trace), start in zip(items, starts, strict=False):
        if not trace.correct:
            rank[bad_layer:, start + 13] += 200
            entropy[bad_layer:, start + 13] += 3
    return Telemetry(
        trace_ids=tuple(t.id for _, t in items),
        starts=tuple(int(s) for s in starts),
        moe_layers=(),
        lens_rank_LS=rank,
        lens_entropy_LS=entropy,
        update_norm_LS=update,
        attention_entropy_LS=entropy,
        router_entropy_RS=entropy[:0],
        expert_load_RE=entropy[:0],
    )


@pytest.mark.parametrize("bad_layer", [0, 2, 5])
def test_the_layer_where_the_lens_turns_is_named_not_those_behind_it(bad_layer):
    items = pool()
    telemetry = measured(items, bad_layer)
    audit = run(Surprisal(n_layers_named=1), items, telemetry=telemetry)
    at_token = [f for f in audit.findings if f.quote == "48+42=80"]
    assert sum(f.layers == (bad_layer,) for f in at_token) >= 0.9 * len(at_token) > 0
    assert all(len(f.layers) == 3 for f in run(Surprisal(), items, telemetry=telemetry).findings)
    assert all(f.layers == () for f in run(Surprisal(n_layers_named=0), items, telemetry=telemetry).findings)


def test_a_trace_outside_the_telemetry_names_no_layer():
    items = pool()
    baseline = LayerBaseline(measured(items[:70], 2), [t for _, t in items if t.correct])
    assert baseline.suspects(items[-1][1], 13, 3) == ()
    assert len(baseline.suspects(items[69][1], 13, 3)) == 3
    assert LayerBaseline(measured(items, 2), []).suspects(items[0][1], 0, 3) == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"false_positive_rate": 0.0}, "false_positive_rate = 0.0"),
        ({"false_positive_rate": 0.6}, "false_positive_rate = 0.6"),
        ({"statistic": "mean"}, "statistic = 'mean': expected token or line"),
        ({"quote": "page"}, "quote = 'page'"),
        ({"n_folds": 1}, "n_folds = 1"),
        ({"n_layers_named": -1}, "n_layers_named = -1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Surprisal(**options)
