"""The source `reasoning_gym`, with the package's own generators and verifiers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from m3i_reasoning_gym.source import ReasoningGymProblems
from m3i_reasoning_gym.steps import first_wrong_step

from m3i.errors import ConfigError
from m3i.problems.canonical import canonical_id
from m3i.stages.problems import make_problem_set

TASKS = [
    ("chain_sum", {"max_terms": 3, "max_digits": 2}, "last_number", "9 + 9 = 18\nanswer {}"),
    ("gcd", {"max_value": 60}, "last_number", "The GCD is {}."),
    ("spell_backward", {"max_word_len": 6}, "last_word", "Backward it is '{}'."),
    ("leg_counting", {"max_animals": 4}, "after:answer", "legs: 4\nanswer {}"),
    ("number_sorting", {"min_numbers": 3, "max_numbers": 4}, r"pattern:\[[^\]]*\]", "Sorted: {}"),
    ("fraction_simplification", {"styles": ["plain"], "max_value": 50}, "last_number", "that is {}"),
]


@pytest.mark.parametrize(("task", "config", "answer", "completion"), TASKS)
def test_a_task(task: str, config: dict, answer: str, completion: str):
    source = ReasoningGymProblems(task=task, config=config, n_train=12, n_held_out=8, answer=answer)
    drawn = make_problem_set(source)
    again = make_problem_set(ReasoningGymProblems(task=task, config=config, n_train=12, n_held_out=8, answer=answer))
    assert drawn == again
    assert drawn != make_problem_set(
        ReasoningGymProblems(task=task, config=config, n_train=12, n_held_out=8, answer=answer, seed=1)
    )
    for problem in (*drawn.train, *drawn.held_out):
        right = source.verify(problem, completion.format(problem.answer))
        assert right.correct
        assert right.answer is not None
        assert right.first_error is None
        others = {p.answer for p in drawn.train} - {problem.answer}
        for other in sorted(others)[:3]:
            assert not source.verify(problem, completion.format(other)).correct
        assert not source.verify(problem, "").correct


def test_several_tasks_share_the_problems():
    source = ReasoningGymProblems(task="chain_sum+gcd", config={"gcd": {"max_value": 40}}, n_train=7, n_held_out=4)
    drawn = make_problem_set(source)
    assert [p.data["task"] for p in drawn.train] == ["chain_sum", "gcd"] * 3 + ["chain_sum"]
    assert [p.data["task"] for p in drawn.held_out] == ["chain_sum", "gcd"] * 2
    assert all(source.verify(p, p.answer).correct for p in (*drawn.train, *drawn.held_out))


def test_a_problem_never_changes_sides():
    config = {"max_terms": 2, "max_digits": 1}
    sides: dict[str, set[str]] = {}
    for seed in range(5):
        drawn = make_problem_set(ReasoningGymProblems(config=config, n_train=30, n_held_out=30, seed=seed))
        for side, problems in (("train", drawn.train), ("held-out", drawn.held_out)):
            for problem in problems:
                sides.setdefault(problem.id, set()).add(side)
    assert len(sides) > 60
    assert all(len(seen) == 1 for seen in sides.values())


def test_commuted_sums_are_one_problem():
    source = ReasoningGymProblems(
        config={"max_terms": 2, "max_digits": 1}, n_train=40, n_held_out=40, prompt="{expression}"
    )
    prompts = {p.prompt for side in source.draw() for p in side}
    for prompt in prompts:
        a, sign, b = prompt.split()
        assert sign == "-" or a == b or f"{b} + {a}" not in prompts


def test_worked_examples_are_never_drawn():
    config = {"max_terms": 2, "max_digits": 1}
    drawn = make_problem_set(ReasoningGymProblems(config=config, prompt="{expression} =", n_train=50, n_held_out=50))
    shown = [drawn.train[0].prompt, drawn.held_out[0].prompt]
    a, sign, b = shown[0].removesuffix(" =").split()
    shown[0] = f"{b}+{a}=" if sign == "+" else f"{a}-{b} = ?"
    without = make_problem_set(
        ReasoningGymProblems(config=config, prompt="{expression} =", n_train=50, n_held_out=50, exclude=shown)
    )
    assert not {canonical_id(s) for s in shown} & {p.id for p in (*without.train, *without.held_out)}


def test_prompt_template():
    source = ReasoningGymProblems(prompt="Work it out: {expression} = ?", n_train=3, n_held_out=3)
    assert all(p.prompt.startswith("Work it out: ") and p.prompt.endswith(" = ?") for p in source.draw()[0])
    with pytest.raises(ConfigError, match=r"problems\.prompt = '\{expresion\}' does not fit.*fields: .*expression"):
        ReasoningGymProblems(prompt="{expresion}").draw()


def test_steps_are_recomputed_in_failing_completions_only():
    source = ReasoningGymProblems(config={"min_terms": 3, "max_terms": 3}, n_train=1, n_held_out=1)
    (problem,), _ = source.draw()
    text = "2 + 2 = 4\n4 + 5 = 8\nanswer 123456"
    error = source.verify(problem, text).first_error
    assert error is not None
    assert (text[error.start : error.end], error.corrected, error.kind) == ("8", "9", "arithmetic")
    assert error.reason == "4 + 5 is 9, not 8"
    assert source.verify(problem, f"4 + 5 = 8\nanswer {problem.answer}").first_error is None
    assert source.verify(problem, text).corrected is None
    assert ReasoningGymProblems(check_steps=False).verify(problem, text).first_error is None


def test_a_last_step_made_right_is_the_corrected_completion():
    source = ReasoningGymProblems(config={"max_terms": 2}, prompt="{expression} =", n_train=20, n_held_out=1)
    for problem in source.draw()[0]:
        wrong = source.verify(problem, f"{problem.prompt} {int(problem.answer) + 10}\nindeed")
        assert not wrong.correct
        assert wrong.corrected == f"{problem.prompt} {problem.answer}"
        assert source.verify(problem, wrong.corrected).correct


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("7 + 8 = 15\n15 - 9 = 2", "2"),
        ("3*4=12, 12/5=2", "2"),
        ("5 - 9 = -4", None),
        ("5 - 9 = 4", "4"),
        ("1 + 2 + 3 = 5", None),
        ("1 + 2 = 3.5", None),
        ("4 / 0 = 4", None),
        ("x = 3, no equation", None),
        ("15 + 9 = 24 apples", None),
        ("6 × 7 = 41.", "41"),
    ],
)
def test_first_wrong_step(text: str, wrong: str | None):
    error = first_wrong_step(text)
    assert (text[error.start : error.end] if error else None) == wrong


@settings(max_examples=50)
@given(st.text())
def test_no_text_upsets_the_verifier(text: str):
    source = ReasoningGymProblems(task="number_sorting", answer="whole", n_train=1, n_held_out=1)
    (problem,), _ = source.draw()
    assert source.verify(problem, text).correct in (True, False)


@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from("+-*"), st.integers(-(10**6), 10**6))
def test_a_step_is_wrong_exactly_when_it_is(a: int, b: int, sign: str, written: int):
    value = {"+": a + b, "-": a - b, "*": a * b}[sign]
    assert first_wrong_step(f"{a} {sign} {b} = {value}") is None
    error = first_wrong_step(f"so {a} {sign} {b} = {written}\nanswer")
    assert (error is None) == (written == value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "chain_summ"}, "no task 'chain_summ'; did you mean 'chain_sum'.*Known: .*gcd"),
        ({"config": {"max_term": 3}}, "no option 'max_term'; did you mean 'max_terms'.*Options: .*min_digits"),
        ({"config": {"seed": 3}}, "no option 'seed'"),
        ({"config": {"min_terms": 5, "max_terms": 2}}, "refuses its configuration .*max_terms must be >= min_terms"),
        (
            {"task": "simple_equations", "config": {"operators": ["+"]}},
            "refuses its configuration .*weights",
        ),
        ({"config": {"max_terms": 2, "max_digits": 1}, "n_train": 500}, "gave only .* 500 and 60 are wanted"),
    ],
)
def test_errors_when_drawing(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        ReasoningGymProblems(**options).draw()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_train": 0}, r"problems\.n_train"),
        ({"n_held_out": 0}, r"problems\.n_held_out"),
        ({"min_score": 0}, r"problems\.min_score"),
        ({"task": "gcd+"}, r"problems\.task"),
        ({"task": "gcd+gcd"}, r"problems\.task"),
        ({"task": "gcd+lcm", "config": {"max_value": 9}}, r"problems\.config .*a mapping for each of gcd, lcm"),
        ({"answer": "last_numer"}, r"problems\.answer"),
    ],
)
def test_bad_options(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        ReasoningGymProblems(**options)


def test_without_the_package():
    code = (
        "import sys; sys.modules['reasoning_gym'] = None\n"
        "from m3i_reasoning_gym.source import ReasoningGymProblems; from m3i.errors import ConfigError\n"
        "try: ReasoningGymProblems().draw()\n"
        "except ConfigError as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "needs the package reasoning-gym" in out
    assert "pip install 'm3i[smollm2]'" in out


def test_the_package_is_imported_only_to_draw():
    module = "m3i_reasoning_gym.source"
    code = f"import sys; from {module} import ReasoningGymProblems as R; R(); sys.exit('reasoning_gym' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
