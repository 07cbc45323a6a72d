"""A draw becomes a problem set only when nothing is empty, repeated or on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3i.artifacts import Problem, Verification
from m3i.component import Component
from m3i.errors import ConfigError, StageError
from m3i.problems.answers import check_rule, read_answer
from m3i.problems.canonical import canonical_id, canonical_text, split_by_hash
from m3i.stages.problems import make_problem_set


@dataclass(kw_only=True)
class Given(Component):
    """A source that draws what it was given."""

    train: list[Problem] = field(default_factory=list, init=False)
    held_out: list[Problem] = field(default_factory=list, init=False)
    n_train: int | None = None

    def draw(self) -> tuple[Sequence[Problem], Sequence[Problem]]:
        return self.train, self.held_out

    def verify(self, problem: Problem, completion: str) -> Verification:
        return Verification(correct=completion == problem.answer, answer=completion)


def problem(prompt: str, id: str = "") -> Problem:
    return Problem(id=id or canonical_id(prompt), prompt=prompt, answer="1")


def source(train: Sequence[Problem], held_out: Sequence[Problem], n_train: int | None = None) -> Given:
    made = Given(n_train=n_train)
    made.train, made.held_out = list(train), list(held_out)
    return made


def test_a_sound_draw_is_kept_as_it_is():
    made = make_problem_set(source([problem("b"), problem("a")], [problem("c")], n_train=2))
    assert [p.prompt for p in made.train] == ["b", "a"]
    assert [p.prompt for p in made.held_out] == ["c"]


@pytest.mark.parametrize(
    ("train", "held_out", "n_train", "message"),
    [
        ([], [problem("a")], None, "drew no train problems"),
        ([problem("a")], [], None, "drew no held_out problems"),
        ([problem("a")], [problem("b")], 2, "drew 1 train problems, but n_train = 2"),
        (
            [problem("a"), problem("A ")],
            [problem("b")],
            None,
            r"twice: train problem 0 \('a'\) and train problem 1 \('A'\)",
        ),
        (
            [problem("2+1")],
            [problem("x"), problem("1 + 2")],
            None,
            r"train problem 0 \('2\+1'\) and held-out problem 1",
        ),
        ([problem("a", "1")], [problem(" a", "2")], None, r"one prompt twice, under two ids: train problem 0"),
    ],
)
def test_unsound_draws_name_both_items(train, held_out, n_train, message):
    with pytest.raises(StageError, match=message):
        make_problem_set(source(train, held_out, n_train))


@given(
    n=st.integers(2, 40),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_split_is_disjoint_and_blind_to_order(n: int, seed: int, data):
    pool = [problem(f"p{i}") for i in range(n)]
    n_train = data.draw(st.integers(1, n - 1))
    n_held_out = data.draw(st.integers(1, n - n_train))
    train, held_out = split_by_hash(pool, n_train, n_held_out, seed)
    assert (len(train), len(held_out)) == (n_train, n_held_out)
    assert not {p.id for p in train} & {p.id for p in held_out}
    again = split_by_hash(pool[::-1], n_train, n_held_out, seed)
    assert [{p.id for p in side} for side in again] == [{p.id for p in side} for side in (train, held_out)]


def test_split_depends_on_the_seed_and_knows_its_limits():
    pool = [problem(f"p{i}") for i in range(30)]
    assert split_by_hash(pool, 10, 10, 0) != split_by_hash(pool, 10, 10, 1)
    with pytest.raises(ConfigError, match="30 problems are too few for 20 train and 11 held-out"):
        split_by_hash(pool, 20, 11, 0)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What is  5 + 3?", "what is 3+5 ?"),
        ("5 - 2 + 3 =", "3+5-2"),
        ("-2 + 7", "7 - 2"),
        ("Solve: 4 * 12. Give only it.", "Solve: 12×4. Give only it."),
        ("A  B\n c", "a b c"),
        ("1.5 + 2 = ?", "2+1.5"),
    ],
)
def test_one_problem_in_two_writings(a: str, b: str):
    assert canonical_text(a) == canonical_text(b)
    assert canonical_id(a) == canonical_id(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("5 - 3", "3 - 5"),
        ("2 + 3 * 4", "4 + 3 * 2"),
        ("8 / 2", "2 / 8"),
        ("capital of France", "capital of Spain"),
        ("1 + 23", "12 + 3"),
        ("x1 + 2", "x2 + 1"),
        ("3 - 5 + 2", "3 + 5 - 2"),
    ],
)
def test_two_problems(a: str, b: str):
    assert canonical_text(a) != canonical_text(b)


def test_names_may_be_disregarded():
    a, b = "Ann gives Bob 2 apples; Ann had 5.", "Zoë gives Carl 2 apples; Zoë had 5."
    assert canonical_text(a) != canonical_text(b)
    c = "Mia gives Tom 2 apples; Mia had 5."
    assert canonical_text(a, names=True) == canonical_text(c, names=True)
    assert canonical_text(a, names=True) != canonical_text("Mia gives Tom 2 apples; Tom had 5.", names=True)


@pytest.mark.parametrize(
    ("rule", "text", "answer"),
    [
        ("last_number", "3 + 4 = 7\nanswer 7.", "7"),
        ("last_number", "it is -1,234.50 in all", "-1,234.50"),
        ("last_number", "9-4=5", "5"),
        ("last_number", "about 3/4", "3/4"),
        ("last_number", "version v2", None),
        ("last_number", "no number", None),
        ("last_word", "the answer is 'nus'.", "nus"),
        ("last_word", " . ", None),
        ("last_line", "a\n b \n\n", "b"),
        ("whole", "  a b ", "a b"),
        ("whole", "  ", None),
        ("boxed", r"so \boxed{1} or \boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        ("boxed", r"\boxed{1", None),
        ("boxed", "none", None),
        ("tag", "<answer> 5 </answer> <answer>6\n</answer>", "6"),
        ("tag", "<answer>5", None),
        ("after:answer", "answer 4\nanswer  5 \nend", "5"),
        ("after:####", "no marker", None),
        (r"pattern:x = (\d+)", "x = 1, x = 22", "22"),
        (r"pattern:\d+", "1 and 22", "22"),
        (r"pattern:\d+", "none", None),
    ],
)
def test_reading_answers(rule: str, text: str, answer: str | None):
    check_rule("problems.answer", rule)
    assert read_answer(text, rule) == answer
    assert answer is None or answer in text


@pytest.mark.parametrize("rule", ["last_numbr", "after:", "pattern:", "pattern:(", "boxed:x", ""])
def test_bad_rules(rule: str):
    with pytest.raises(ConfigError, match=r"problems\.answer"):
        check_rule("problems.answer", rule)


@given(st.text())
def test_no_text_upsets_a_rule(text: str):
    for rule in ("last_number", "last_word", "last_line", "whole", "boxed", "tag", "after:a", "pattern:a(b)?"):
        answer = read_answer(text, rule)
        assert answer is None or answer in text
