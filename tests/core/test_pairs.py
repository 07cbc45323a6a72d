"""Preference pairs: which traces stand on which side, what is counted, and that nothing is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3i.artifacts import PairOrigin, Problem, StepError, Trace, Verification
from m3i.config.settings import Corrected, Overlong, PairSettings
from m3i.errors import StageError
from m3i.stages.pairs import build_pairs

EOS = 0


class Words:
    """Right completions begin with `right`; a wrong one is corrected by its first word, unless it says `hopeless`."""

    libraries = ()

    def draw(self):
        return (), ()

    def verify(self, problem, completion):
        if completion.startswith("right"):
            return Verification(correct=True, answer="1")
        if completion.startswith("hopeless"):
            return Verification(correct=False, answer=None)
        corrected = "still wrong" if completion.startswith("stubborn") else f"right {completion}"
        error = StepError(start=0, end=5, kind="arithmetic", corrected="right")
        return Verification(correct=False, answer="2", first_error=error, corrected=corrected)


def encode(text):
    return [ord(c) for c in text]


def problem(name):
    return Problem(id=name, prompt=f"{name}?", answer="1")


def trace(name, sample, text, *, truncated=False):
    ids = (*encode(text), *([] if truncated else [EOS]))
    return Trace(
        id=f"{name}.{sample}",
        problem_id=name,
        sample=sample,
        prompt_ids=tuple(encode(f"{name}?")),
        completion_ids=ids,
        text=text,
        offsets=((0, 0),) * len(ids),
        logprobs=(-1.0,) * len(ids),
        correct=text.startswith("right"),
        answer=None,
        truncated=truncated,
    )


def traces_of(**texts):
    return [trace(name, i, text) for name, own in texts.items() for i, text in enumerate(own)]


def build(traces, names=None, **changes):
    names = names if names is not None else sorted({t.problem_id for t in traces})
    settings = PairSettings(**{"per_problem": 2, "max_length": 100, "seed": 0} | changes)
    return build_pairs([problem(n) for n in names], traces, Words(), encode, end_id=EOS, settings=settings)


def sides(pairs):
    return [(p.chosen_text, p.rejected_text) for p in pairs.pairs]


def test_a_sampled_pair_carries_both_traces_as_they_are():
    pairs = build(traces_of(a=["right 1", "wrong 1"]))
    (pair,) = pairs.pairs
    assert (pair.chosen_text, pair.rejected_text) == ("right 1", "wrong 1")
    assert pair.prompt_ids == tuple(encode("a?"))
    assert pair.chosen_ids == (*encode("right 1"), EOS)
    assert pair.rejected_ids == (*encode("wrong 1"), EOS)
    assert (pair.problem_id, pair.rejected_trace_id, pair.origin) == ("a", "a.1", PairOrigin.SAMPLED)
    assert pairs.lengths == {
        "prompt_mean": 2.0,
        "prompt_max": 2.0,
        "chosen_mean": 8.0,
        "chosen_max": 8.0,
        "rejected_mean": 8.0,
        "rejected_max": 8.0,
        "pair_mean": 10.0,
        "pair_max": 10.0,
    }


def test_problems_are_counted_by_outcome():
    traces = traces_of(a=["right 1", "wrong 1"], b=["right 1", "right 2"], c=["wrong 1", "wrong 2"])
    counts = build(traces, names=["a", "b", "c", "d"], corrected="none").counts
    assert counts["problems"] == 4
    assert counts["problems: both"] == 1
    assert counts["problems: all right"] == 1
    assert counts["problems: all wrong"] == 1
    assert counts["problems: no trace"] == 1
    assert (counts["pairs: sampled"], counts["pairs: corrected"]) == (1, 0)


MIXED = traces_of(a=["right 1", "wrong 1", "wrong 2"], b=["wrong 3"])


@pytest.mark.parametrize(
    ("corrected", "expected"),
    [
        ("none", {("right 1", "wrong 1"), ("right 1", "wrong 2")}),
        ("fill", {("right 1", "wrong 1"), ("right 1", "wrong 2"), ("right wrong 3", "wrong 3")}),
        ("only", {("right wrong 1", "wrong 1"), ("right wrong 2", "wrong 2"), ("right wrong 3", "wrong 3")}),
        (
            "also",
            {
                ("right 1", "wrong 1"),
                ("right 1", "wrong 2"),
                ("right wrong 1", "wrong 1"),
                ("right wrong 2", "wrong 2"),
                ("right wrong 3", "wrong 3"),
            },
        ),
    ],
)
def test_when_a_corrected_completion_is_chosen(corrected, expected):
    pairs = build(MIXED, corrected=corrected)
    assert set(sides(pairs)) == expected
    assert len(pairs.pairs) == len(expected)
    for pair in pairs.pairs:
        is_corrected = pair.chosen_text.startswith("right wrong")
        assert pair.origin is (PairOrigin.CORRECTED if is_corrected else PairOrigin.SAMPLED)
        assert pair.chosen_ids == (*encode(pair.chosen_text), EOS)
    assert pairs.counts["pairs: corrected"] == sum(p.origin is PairOrigin.CORRECTED for p in pairs.pairs)


def test_corrections_that_do_not_exist_or_are_not_right_are_counted():
    pairs = build(traces_of(a=["wrong 1"], b=["hopeless 1"], c=["stubborn 1"]))
    assert sides(pairs) == [("right wrong 1", "wrong 1")]
    assert pairs.counts["left out: source has no correction"] == 1
    assert pairs.counts["left out: correction is not right"] == 1


def test_a_correction_equal_to_a_sampled_trace_gives_one_pair():
    pairs = build(traces_of(a=["right wrong 1", "wrong 1"]), corrected="also")
    assert sides(pairs) == [("right wrong 1", "wrong 1")]
    assert pairs.pairs[0].origin is PairOrigin.SAMPLED


def test_equal_completions_count_once():
    pairs = build(traces_of(a=["right 1", "right 1", "wrong 1", "wrong 1", "wrong 1"]), per_problem=9)
    assert sides(pairs) == [("right 1", "wrong 1")]
    assert pairs.counts["left out: chosen trace repeats another"] == 1
    assert pairs.counts["left out: rejected trace repeats another"] == 2


def test_every_failing_trace_is_used_before_any_twice():
    traces = traces_of(a=["right 1", "right 2", "wrong 1", "wrong 2", "wrong 3"])
    for seed in range(5):
        assert {r for _, r in sides(build(traces, per_problem=3, seed=seed))} == {"wrong 1", "wrong 2", "wrong 3"}
    everything = sides(build(traces, per_problem=99))
    assert len(everything) == len(set(everything)) == 6


def test_the_seed_decides_and_other_problems_do_not():
    traces = traces_of(a=[*(f"right {i}" for i in range(5)), *(f"wrong {i}" for i in range(5))])
    first = sides(build(traces, seed=1))
    assert first == sides(build(traces, seed=1))
    assert len({tuple(sides(build(traces, seed=s))) for s in range(6)}) > 1
    with_another = build([*traces_of(A=["right 1", "wrong 1"]), *traces], names=["A", "a"], seed=1)
    assert [s for s, p in zip(sides(with_another), with_another.pairs, strict=True) if p.problem_id == "a"] == first


def test_truncated_traces_are_left_out_and_counted():
    traces = [
        trace("a", 0, "right 1"),
        trace("a", 1, "right 2", truncated=True),
        trace("a", 2, "wrong 1"),
        trace("a", 3, "wrong 2", truncated=True),
    ]
    pairs = build(traces, per_problem=9)
    assert sides(pairs) == [("right 1", "wrong 1")]
    assert pairs.counts["left out: chosen trace is truncated"] == 1
    assert pairs.counts["left out: rejected trace is truncated"] == 1


def test_truncated_traces_may_be_rejected_on_request_as_they_are():
    traces = [
        trace("a", 0, "right 1"),
        trace("a", 1, "wrong 1", truncated=True),
        trace("a", 2, "right 2", truncated=True),
    ]
    (pair,) = build(traces, truncated=True).pairs
    assert pair.rejected_ids == tuple(encode("wrong 1"))
    assert pair.chosen_text == "right 1"


def test_a_cap_on_all_pairs_keeps_a_draw_of_them_in_order_and_counts_the_rest():
    traces = traces_of(**{name: ["right 1", "wrong 1", "wrong 2"] for name in "abcdef"})
    everything = sides(build(traces)), [p.problem_id for p in build(traces).pairs]
    capped = build(traces, at_most=5)
    assert len(capped.pairs) == 5 == capped.counts["pairs: sampled"]
    assert capped.counts["left out: beyond at_most"] == len(everything[0]) - 5
    names = [p.problem_id for p in capped.pairs]
    assert names == sorted(names)
    assert capped.lengths["chosen_max"] == 8
    drawn = {tuple((p.problem_id, p.rejected_text) for p in build(traces, at_most=5, seed=s).pairs) for s in range(6)}
    assert len(drawn) > 1
    assert sides(build(traces, at_most=12)) == everything[0]


def test_a_pair_of_exactly_the_limit_fits_and_a_longer_one_is_counted():
    traces = traces_of(a=["right 1", "wrong 1"], b=["right 1", "wrong " + "1" * 9])
    assert len(build(traces, max_length=18).pairs) == 2
    pairs = build(traces, max_length=17)
    assert sides(pairs) == [("right 1", "wrong 1")]
    assert pairs.counts["left out: longer than max_length"] == 1
    assert pairs.counts["pairs: sampled"] == 1


def test_a_longer_pair_is_an_error_on_request():
    traces = traces_of(a=["right 1", "wrong 1"], b=["right 1", "wrong " + "1" * 9])
    with pytest.raises(StageError, match=r"problem b takes 18 tokens, more than pairs\.max_length=17"):
        build(traces, max_length=17, overlong=Overlong.error)


def test_no_pair_at_all_is_an_error_that_shows_the_counts():
    with pytest.raises(StageError, match=r"no preference pair .*'problems: all right': 1"):
        build(traces_of(a=["right 1", "right 2"]))


TEXTS = st.lists(
    st.sampled_from(["right 1", "right 2", "right wrong 1", "wrong 1", "wrong 2", "hopeless 1"]), max_size=6
)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.dictionaries(st.sampled_from("abc"), TEXTS, min_size=1),
    per_problem=st.integers(1, 4),
    corrected=st.sampled_from(list(Corrected)),
    seed=st.integers(0, 5),
)
def test_what_holds_for_all_traces(texts, per_problem, corrected, seed):
    traces = traces_of(**texts)
    try:
        pairs = build(traces, names=sorted(texts), per_problem=per_problem, corrected=corrected, seed=seed)
    except StageError:
        return
    keys = [(p.prompt_ids, p.chosen_ids, p.rejected_ids) for p in pairs.pairs]
    assert len(keys) == len(set(keys))
    rejected_ids = {t.id: t for t in traces}
    for pair in pairs.pairs:
        assert pair.chosen_text.startswith("right")
        assert not rejected_ids[pair.rejected_trace_id].correct
        assert rejected_ids[pair.rejected_trace_id].completion_ids == pair.rejected_ids
        assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == EOS
    for origin in PairOrigin:
        for name in texts:
            own = [p for p in pairs.pairs if p.problem_id == name and p.origin is origin]
            assert len(own) <= per_problem
    counts = pairs.counts
    assert sum(counts.get(f"problems: {o}", 0) for o in ("both", "all right", "all wrong", "no trace")) == len(texts)
    assert counts["pairs: sampled"] + counts["pairs: corrected"] == len(pairs.pairs)
