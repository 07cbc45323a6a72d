import random
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from m3i_arithmetic.expressions import (
    RESERVED_MODULUS,
    Expression,
    Term,
    canonical,
    canonical_hash,
    is_reserved,
    parse_expression,
    render_completion,
    render_prompt,
    solve,
)
from m3i_arithmetic.generate import Difficulty, draw_expression, draw_from_split
from m3i_arithmetic.source import ArithmeticProblems
from m3i_arithmetic.steps import ErrorKind, check_solution, correct_solution, parse_lines, repair_solution

from m3i.errors import ConfigError

PROMPT = "48+7*6-15=?\n"
SOLUTION = "7*6=42\n48+42=90\n90-15=75\nanswer 75\n"

terms = st.builds(
    Term, sign=st.sampled_from([1, -1]), factors=st.lists(st.integers(0, 60), min_size=1, max_size=3).map(tuple)
)


@st.composite
def expressions(draw):
    first = draw(terms)
    return Expression(terms=(Term(sign=1, factors=first.factors), *draw(st.lists(terms, max_size=5))))


# -- expressions ------------------------------------------------------------------------------


@given(expressions())
def test_a_written_expression_reads_back_and_has_pythons_value(expression):
    assert parse_expression(str(expression)) == expression
    assert parse_expression(render_prompt(expression)) == expression
    assert expression.value == eval(str(expression))


@given(expressions(), st.randoms(use_true_random=False))
def test_canonical_form_ignores_order_and_white_space(expression, rng):
    shuffled = [Term(sign=t.sign, factors=tuple(rng.sample(t.factors, len(t.factors)))) for t in expression.terms]
    rng.shuffle(shuffled)
    # A written expression starts with an added term.
    shuffled.sort(key=lambda term: -term.sign)
    commuted = Expression(terms=tuple(shuffled))
    spaced = re.sub(r"([*+-])", r" \1  ", str(commuted)) + " = ?\n"
    assert canonical(spaced) == canonical(expression)
    assert canonical_hash(commuted) == canonical_hash(expression)
    assert is_reserved(spaced) == is_reserved(expression)


@given(expressions())
def test_canonical_form_is_a_fixed_point(expression):
    written = canonical(expression).removeprefix("+")
    assert canonical(written) == canonical(expression)
    assert parse_expression(written).value == expression.value


@pytest.mark.parametrize(("one", "other"), [("9-3=?", "3-9=?"), ("2*3+4", "2+3*4"), ("12+3", "1+23"), ("2+2", "2*2")])
def test_different_problems_have_different_canonical_forms(one, other):
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize("text", ["", "?", "7*", "-3+4", "7//2", "1.5+2", "two+2", "(1+2)*3", "1+2=4", "1e9"])
def test_what_is_no_problem_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="not an arithmetic problem"):
        parse_expression(text)


@given(expressions())
def test_the_solution_is_a_chain_of_true_steps_to_the_value(expression):
    *steps, answer = solve(expression)
    assert len(steps) == expression.operations
    for step in steps:
        left, _, right = step.partition("=")
        assert eval(left) == int(right)
    assert answer == f"answer {eval(str(expression))}"


# -- generator --------------------------------------------------------------------------------


def test_drawn_problems_keep_to_the_difficulty():
    difficulty = Difficulty()
    rng = random.Random(0)
    drawn = [draw_expression(rng, difficulty) for _ in range(3000)]
    assert {e.operations for e in drawn} == {3, 4, 5}
    assert {sum(len(t.factors) - 1 for t in e.terms) for e in drawn} == {0, 1, 2}
    for expression in drawn:
        numbers = [int(line.rpartition("=")[2]) for line in solve(expression)[:-1]]
        assert all(0 <= number <= difficulty.largest_value for number in numbers)
        for term in expression.terms:
            assert len(term.factors) in (1, 2)
            if len(term.factors) == 1:
                assert 2 <= term.factors[0] <= difficulty.largest_operand
            else:
                assert 2 <= term.factors[0] <= difficulty.largest_factor
                assert 2 <= term.factors[1] <= difficulty.largest_multiplicand
    completions = [render_completion(e) for e in drawn]
    assert max(map(len, completions)) <= 66
    assert sum(map(len, completions)) / len(completions) < 50


def test_the_same_seed_draws_the_same_problems():
    one, again, other = (draw_from_split(random.Random(s), Difficulty(), reserved=True) for s in (3, 3, 4))
    first = [next(one) for _ in range(50)]
    assert first == [next(again) for _ in range(50)]
    assert first != [next(other) for _ in range(50)]


def test_one_in_eight_problems_is_reserved_and_the_streams_never_meet():
    rng = random.Random(5)
    drawn = [draw_expression(rng, Difficulty()) for _ in range(8000)]
    share = sum(map(is_reserved, drawn)) / len(drawn)
    assert abs(share - 1 / RESERVED_MODULUS) < 0.015
    training = draw_from_split(random.Random(1), Difficulty(), reserved=False)
    experiment = draw_from_split(random.Random(1), Difficulty(), reserved=True)
    seen_in_training = {canonical(next(training)) for _ in range(20_000)}
    assert not seen_in_training & {canonical(next(experiment)) for _ in range(5000)}


def test_the_experiments_space_is_large():
    stream = draw_from_split(random.Random(2), Difficulty(), reserved=True)
    hashes = [canonical_hash(next(stream)) for _ in range(4000)]
    repeats = len(hashes) - len(set(hashes))
    # n draws from S equally likely problems repeat about n² / 2S times, and more often if they are not equally likely.
    assert len(hashes) ** 2 / (2 * repeats) > 50_000


def test_a_side_without_problems_is_an_error_not_an_endless_search():
    tiny = Difficulty(
        operations_min=1,
        operations_max=1,
        products_max=0,
        largest_operand=2,
        largest_multiplicand=2,
        largest_factor=2,
        largest_value=4,
    )
    # Only 2+2 and 2-2 exist; at least one side holds neither, or both sides hold one.
    sides = {is_reserved("2+2"), is_reserved("2-2")}
    for reserved in {True, False} - sides:
        with pytest.raises(ValueError, match="no problem of this difficulty"):
            next(draw_from_split(random.Random(0), tiny, reserved=reserved))


@pytest.mark.parametrize(
    "wrong",
    [
        {"operations_min": 0},
        {"operations_min": 4, "operations_max": 3},
        {"products_max": -1},
        {"largest_operand": 1},
        {"largest_value": 50},
    ],
)
def test_impossible_difficulties_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).partition("_m")[0]):
        Difficulty(**wrong)


# -- verifier ---------------------------------------------------------------------------------


@given(expressions())
def test_every_correct_solution_passes(expression):
    prompt = render_prompt(expression)
    check = check_solution(prompt, correct_solution(prompt))
    assert check.right
    assert check.answer_right
    assert check.answer == expression.value
    assert check.steps_right == expression.operations + 1
    assert repair_solution(prompt, correct_solution(prompt)) == correct_solution(prompt)


@pytest.mark.parametrize(
    "completion",
    [
        "7*6=42\n48-15=33\n33+42=75\nanswer 75\n",
        "6*7=42\n42+48=90\n90-15=75\nanswer 75",
        "7*6=42\n42-15=27\n27+48=75\nanswer 75\n",
        " 7 * 6 = 42\n\n48 + 42 = 90\r\n90-15=75\nAnswer: 75\n",
    ],
)
def test_any_valid_order_of_work_passes(completion):
    assert check_solution(PROMPT, completion).right


def test_subtracted_terms_may_be_joined_among_themselves():
    assert check_solution("90-15-5=?", "15+5=20\n90-20=70\nanswer 70\n").right
    assert check_solution("90-15+5=?", "15-5=10\n90-10=80\nanswer 80\n").right
    assert not check_solution("90-15-5=?", "15-5=10\n90-10=80\nanswer 80\n").right


PLANTED = [
    # completion, kind, quote, character where it goes wrong within the quote, correction
    ("7*6=48\n48+48=96\n96-15=81\nanswer 81\n", ErrorKind.RESULT, "7*6=48", 5, "7*6=42"),
    ("7*6=42\n48+42=80\n80-15=65\nanswer 65\n", ErrorKind.RESULT, "48+42=80", 6, "48+42=90"),
    ("7*6=42\n42+48=80\n80-15=65\nanswer 65\n", ErrorKind.RESULT, "42+48=80", 6, "42+48=90"),
    ("7*6=42\n48+42=90\n90-16=74\nanswer 74\n", ErrorKind.OPERAND, "90-16=74", 4, "90-15=75"),
    ("7*6=42\n48+41=89\n89-15=74\nanswer 74\n", ErrorKind.OPERAND, "48+41=89", 4, "48+42=90"),
    ("7*6=42\n48-42=6\n6-15=-9\nanswer -9\n", ErrorKind.OPERATION, "48-42=6", 2, "48+42=90"),
    ("48+7=55\n55*6=330\n330-15=315\nanswer 315\n", ErrorKind.OPERATION, "48+7=55", 0, "7*6=42"),
    ("48+42=90\n90-15=75\nanswer 75\n", ErrorKind.SKIPPED, "48+42=90", 0, "7*6=42"),
    ("7*6=42\n48+42=90\nanswer 75\n", ErrorKind.SKIPPED, "answer 75", 0, "90-15=75"),
    ("7*6=42\n48+42=90\n90-15=75\nanswer 65\n", ErrorKind.ANSWER, "answer 65", 7, "answer 75"),
    ("7*6=42\nso 90\n90-15=75\nanswer 75\n", ErrorKind.FORMAT, "so 90", 0, "48+42=90"),
    ("7*6=42\n48+42=90\n90-1", ErrorKind.FORMAT, "90-1", 3, "90-15=75"),
    ("7*6=42\n48+42=90\n", ErrorKind.FORMAT, "", 0, "90-15=75"),
    (SOLUTION + "1+1=2\n", ErrorKind.FORMAT, "1+1=2", 0, ""),
]


@pytest.mark.parametrize(("completion", "kind", "quote", "focus", "corrected"), PLANTED)
def test_each_planted_error_is_found_where_it_is(completion, kind, quote, focus, corrected):
    check = check_solution(PROMPT, completion)
    wrong = check.first_wrong
    assert wrong is not None
    assert not check.right
    assert (wrong.kind, wrong.quote, wrong.corrected) == (kind, quote, corrected)
    assert completion[wrong.start : wrong.end] == quote
    assert wrong.focus == wrong.start + focus
    assert check.steps_right == wrong.index
    assert wrong.reason
    repaired = repair_solution(PROMPT, completion)
    assert repaired.startswith(completion[: wrong.start])
    assert check_solution(PROMPT, repaired).right


def test_a_right_answer_does_not_excuse_a_wrong_step():
    check = check_solution(PROMPT, "7*6=41\n48+42=90\n90-15=75\nanswer 75\n")
    assert check.answer_right
    assert not check.right
    assert check.first_wrong.kind is ErrorKind.RESULT


def test_a_repaired_miscalculation_keeps_the_order_of_work():
    repaired = repair_solution(PROMPT, "7*6=42\n48-15=32\n32+42=74\nanswer 74\n")
    assert repaired == "7*6=42\n48-15=33\n33+42=75\nanswer 75\n"


@given(expressions(), st.data())
def test_one_changed_digit_is_always_found(expression, data):
    completion = correct_solution(render_prompt(expression))
    places = [i for i, character in enumerate(completion) if character.isdigit()]
    place = data.draw(st.sampled_from(places))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != completion[place]]))
    changed = completion[:place] + digit + completion[place + 1 :]
    before = [line for line in parse_lines(completion) if line.end <= place]
    check = check_solution(render_prompt(expression), changed)
    if check.first_wrong is None:
        # The change may only have turned the step into another valid one, such as 0*3 into 0*4 with both at hand.
        assert check.answer_right
    else:
        assert check.first_wrong.index >= len(before)
        assert check_solution(render_prompt(expression), repair_solution(render_prompt(expression), changed)).right


@given(st.text() | st.text(alphabet="0123456789+-*=answer \n", max_size=80))
def test_no_text_makes_the_verifier_raise(completion):
    check = check_solution(PROMPT, completion)
    if check.first_wrong is not None:
        assert completion[check.first_wrong.start : check.first_wrong.end] == check.first_wrong.quote
        assert check.first_wrong.start <= check.first_wrong.focus <= len(completion)
    assert check_solution(PROMPT, repair_solution(PROMPT, completion)).right


# -- component --------------------------------------------------------------------------------


def test_the_source_draws_disjoint_reserved_problems():
    train, held_out = ArithmeticProblems(n_train=300, n_held_out=200, seed=1).draw()
    assert (len(train), len(held_out)) == (300, 200)
    ids = [problem.id for problem in (*train, *held_out)]
    assert len(set(ids)) == 500
    for problem in (*train, *held_out):
        assert problem.id == canonical_hash(problem.prompt)
        assert is_reserved(problem.prompt)
        assert problem.answer == str(eval(problem.prompt.removesuffix("=?\n")))
        assert problem.solution == "\n".join((*problem.steps, f"answer {problem.answer}", ""))


def test_the_two_sides_do_not_depend_on_each_others_size_nor_share_problems_across_seeds():
    small, _ = ArithmeticProblems(n_train=20, n_held_out=5).draw()
    large, _ = ArithmeticProblems(n_train=20, n_held_out=50).draw()
    assert small == large
    sides = [ArithmeticProblems(n_train=500, n_held_out=500, seed=seed).draw() for seed in (0, 1)]
    assert not {p.id for p in sides[0][0]} & {p.id for p in sides[1][1]}


def test_the_source_verifies_steps_as_the_core_wants_it():
    source = ArithmeticProblems()
    problem = source.draw()[0][0]
    right = source.verify(problem, problem.solution)
    assert (right.correct, right.answer, right.first_error) == (True, problem.answer, None)
    step = problem.steps[-1]
    broken = problem.solution.replace(step, step + "7")
    wrong = source.verify(problem, broken)
    assert not wrong.correct
    assert broken[wrong.first_error.start : wrong.first_error.end] == step + "7"
    assert wrong.first_error.corrected == step
    assert wrong.first_error.kind == "arithmetic"
    assert wrong.corrected == problem.solution
    assert source.verify(problem, "").answer is None


def test_too_many_problems_for_the_space_is_an_error_that_says_how_many_there_are():
    with pytest.raises(ConfigError, match=r"only \d+ distinct train problems"):
        ArithmeticProblems(n_train=5000, operations_min=1, operations_max=1, largest_operand=20).draw()


@pytest.mark.parametrize("wrong", [{"n_train": 0}, {"n_held_out": 0}, {"operations_min": 9}, {"largest_value": 3}])
def test_bad_options_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ArithmeticProblems(**wrong)


def test_loading_the_plugin_imports_nothing_heavy():
    code = "import sys, m3i_arithmetic; print([m for m in ('torch', 'transformers', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
