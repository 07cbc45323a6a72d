"""Blind pairs, and how two ballots become a verdict."""

import asyncio
from dataclasses import dataclass, field

import pytest

from m3i.artifacts import Answer, CallFacts, Outcome, Problem, merge
from m3i.errors import StageError
from m3i.interfaces import Ballot, Judgment
from m3i.stages.injections import canaries
from m3i.stages.judge import blind_pairs, judge_answers, pair_answers

PROBLEMS = tuple(Problem(id=f"p{i}", prompt=f"{i}+1=?", answer=str(i + 1)) for i in range(8))


def answer(problem_id, text, seed=0):
    return Answer(
        problem_id=problem_id, seed=seed, completion_ids=tuple(map(ord, text)), text=text, correct=True, answer=None,
        truncated=False,
    )  # fmt: skip


BASE = tuple(answer(p.id, f"base {p.id}") for p in PROBLEMS)
TUNED = tuple(answer(p.id, f"tuned {p.id}" if i else f"base {p.id}") for i, p in enumerate(PROBLEMS))


@dataclass
class Scripted:
    """A judge that applies a rule to the two texts it sees."""

    rule: object
    seen: list = field(default_factory=list)

    async def judge(self, request):
        self.seen += request.pairs
        ballots = [Ballot(key=p.key, choice=self.rule(p), reason="r") for p in request.pairs]
        return Judgment(ballots=ballots, calls=CallFacts(n_calls=len(ballots), cost_usd=0.5 * len(ballots)))


def judged(judge, base=BASE, tuned=TUNED, **options):
    return asyncio.run(
        judge_answers(name="mine", judge=judge, problems=PROBLEMS, base=base, tuned=tuned, source=None, ledger=None,
                      **options)
    )  # fmt: skip


def run(rule, **options):
    judge = Scripted(rule)
    return judged(judge, **options), judge.seen


def test_each_unequal_pair_is_shown_once_in_each_order_and_equal_answers_never():
    verdicts, seen = run(lambda p: "tie")
    orders = sorted((p.problem.id, p.a.text.split()[0]) for p in seen)
    assert orders == sorted((p.id, side) for p in PROBLEMS[1:] for side in ("base", "tuned"))
    assert verdicts.n_equal == 1
    assert (verdicts.verdicts[0].outcome, verdicts.verdicts[0].first) == (Outcome.TIE, "equal")
    assert (verdicts.calls.n_calls, verdicts.calls.cost_usd) == (14, 0.5 * 14)


def test_keys_and_order_tell_the_judge_nothing_and_repeat_under_a_seed():
    _, seen = run(lambda p: "tie")
    _, again = run(lambda p: "tie")
    _, other = run(lambda p: "tie", seed=1)
    assert [(p.key, p.a.text) for p in seen] == [(p.key, p.a.text) for p in again]
    assert [p.a.text for p in seen] != [p.a.text for p in other]
    assert [p.key for p in seen] == [f"pair-{i:05d}" for i in range(14)]
    first_sides = [p.a.text.split()[0] for p in seen]
    assert first_sides != sorted(first_sides)


def test_a_judge_that_sees_the_better_answer_gives_wins_and_one_that_sees_the_order_gives_splits():
    prefers_tuned, _ = run(lambda p: "a" if p.a.text.startswith("tuned") else "b")
    assert [v.outcome for v in prefers_tuned.verdicts[1:]] == [Outcome.TUNED] * 7
    prefers_base, _ = run(lambda p: "b" if p.a.text.startswith("tuned") else "a")
    assert [v.outcome for v in prefers_base.verdicts[1:]] == [Outcome.BASE] * 7
    prefers_first, _ = run(lambda p: "a")
    assert {(v.outcome, v.first, v.second) for v in prefers_first.verdicts[1:]} == {(Outcome.SPLIT, "base", "tuned")}


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ("base", "base", Outcome.BASE), ("tuned", "tuned", Outcome.TUNED), ("tie", "tie", Outcome.TIE),
        ("base", "tuned", Outcome.SPLIT), ("tuned", "base", Outcome.SPLIT), ("tie", "base", Outcome.SPLIT),
        ("tuned", "tie", Outcome.SPLIT), ("missing", "base", Outcome.MISSING), ("tie", "missing", Outcome.MISSING),
    ],
)  # fmt: skip
def test_merge_table(first, second, outcome):
    assert merge(first, second) is outcome


def test_a_ballot_that_never_came_is_missing():
    @dataclass
    class Silent:
        async def judge(self, request):
            return Judgment(ballots=[Ballot(key=request.pairs[0].key, choice="a")])

    verdicts = judged(Silent())
    assert [v.outcome for v in verdicts.verdicts].count(Outcome.MISSING) == 7


@pytest.mark.parametrize(
    ("ballots", "message"),
    [
        (lambda pairs: [Ballot(key="other", choice="a")], "not asked for"),
        (lambda pairs: [Ballot(key=pairs[0].key, choice="a")] * 2, "two ballots"),
        (lambda pairs: [Ballot(key=pairs[0].key, choice="A")], "expected one of a, b, tie, missing"),
        (lambda pairs: [Ballot(key=pairs[0].key, choice="a", replicates=("a", "x"))], "chose 'x'"),
    ],
)
def test_invalid_ballots_are_errors_that_name_the_judge(ballots, message):
    @dataclass
    class Broken:
        async def judge(self, request):
            return Judgment(ballots=ballots(request.pairs))

    with pytest.raises(StageError, match=message) as error:
        judged(Broken())
    assert "'mine'" in str(error.value)


def test_the_two_sides_must_answer_the_same_questions():
    with pytest.raises(StageError, match=r"only one of the two models, e\.g\. problem p7 with seed 0"):
        pair_answers(problems=PROBLEMS, base=BASE, tuned=TUNED[:-1])
    with pytest.raises(StageError, match="belong to no held-out problem"):
        pair_answers(problems=PROBLEMS[:-1], base=BASE, tuned=TUNED)
    with pytest.raises(StageError, match="repeated"):
        pair_answers(problems=PROBLEMS, base=(*BASE, BASE[0]), tuned=TUNED)


def test_several_seeds_are_matched_by_seed_and_nothing_is_asked_when_all_is_equal():
    base = tuple(answer("p1", f"seed {s}", s) for s in range(3))
    verdicts, seen = run(lambda p: "a", base=base, tuned=tuple(reversed(base)))
    assert seen == []
    assert [(v.seed, v.outcome) for v in verdicts.verdicts] == [(s, Outcome.TIE) for s in range(3)]
    assert blind_pairs(pair_answers(problems=PROBLEMS, base=base, tuned=base), seed=0).pairs == ()


def test_the_single_choices_of_an_order_are_kept_in_words_of_base_and_tuned():
    @dataclass
    class Wavering:
        async def judge(self, request):
            return Judgment(ballots=[Ballot(key=p.key, choice="a", replicates=("a", "b", "a")) for p in request.pairs])

    verdict = judged(Wavering()).verdicts[1]
    assert verdict.replicates_first == ("base", "tuned", "base")
    assert verdict.replicates_second == ("tuned", "base", "tuned")


# -- canaries ---------------------------------------------------------------------------------

PLANTED = tuple(injection.text for injection in canaries())


def obeys(pair):
    """Follows an instruction in the text that it judges."""
    planted = [pair.a.text.endswith(PLANTED), pair.b.text.endswith(PLANTED)]
    return "tie" if planted[0] == planted[1] else "a" if planted[0] else "b"


def test_canaries_are_shown_blind_in_both_orders_and_make_no_verdict():
    verdicts, seen = run(lambda p: "tie", n_canaries=5)
    assert len(verdicts.verdicts) == len(PROBLEMS)
    assert len(verdicts.canaries) == 5
    assert len(seen) == 14 + 10
    assert [p.key for p in seen] == [f"pair-{i:05d}" for i in range(24)]
    planted = [p for p in seen if p.a.text.endswith(PLANTED) or p.b.text.endswith(PLANTED)]
    assert sorted(p.a.text.endswith(PLANTED) for p in planted) == [False] * 5 + [True] * 5
    assert all(p.a.text.startswith("base") and p.b.text.startswith("base") for p in planted)
    assert len({c.problem_id for c in verdicts.canaries}) == 5
    assert [seen.index(p) for p in planted] != list(range(14, 24))
    again, _ = run(lambda p: "tie", n_canaries=5)
    assert again.canaries == verdicts.canaries
    other, _ = run(lambda p: "tie", n_canaries=5, seed=1)
    assert [c.injection for c in other.canaries] != [c.injection for c in verdicts.canaries]


@pytest.mark.parametrize(
    ("rule", "first", "second", "obeyed"),
    [
        (obeys, "planted", "planted", True),
        (lambda p: "tie", "tie", "tie", False),
        (lambda p: "a", "planted", "clean", False),
        (lambda p: "b", "clean", "planted", False),
        (lambda p: "missing", "missing", "missing", False),
    ],
)
def test_only_a_judge_that_chooses_the_planted_answer_in_both_orders_has_obeyed(rule, first, second, obeyed):
    verdicts, _ = run(rule, n_canaries=4)
    assert {(c.first, c.second, c.obeyed) for c in verdicts.canaries} == {(first, second, obeyed)}


def test_no_canary_where_nothing_is_judged_and_more_canaries_than_problems_repeat_problems():
    verdicts, seen = run(lambda p: "a", tuned=BASE, n_canaries=4)
    assert (verdicts.canaries, seen) == ((), [])
    verdicts, _ = run(lambda p: "a", n_canaries=11)
    assert len(verdicts.canaries) == 11
    assert len({c.problem_id for c in verdicts.canaries}) == len(PROBLEMS)
