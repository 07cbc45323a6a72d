"""The source `jsonl`: the user's own file, and every way in which it can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from m3i_jsonl.compare import as_number, same_mathematics, same_number, same_text
from m3i_jsonl.source import JsonlProblems

from m3i.errors import ConfigError, InputError
from m3i.stages.problems import make_problem_set


def write(path: Path, records: list[Any]) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return str(path)


def sums(first: int, count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {i} + 1000?", "answer": i + 1000} for i in range(first, first + count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "problems.jsonl"


def test_one_file_is_split_by_hash(file: Path):
    records = sums(0, 50)
    drawn = make_problem_set(JsonlProblems(path=write(file, records)))
    assert (len(drawn.train), len(drawn.held_out)) == (30, 20)
    write(file, records[::-1])
    again = make_problem_set(JsonlProblems(path=str(file)))
    assert {p.id for p in again.held_out} == {p.id for p in drawn.held_out}
    other = make_problem_set(JsonlProblems(path=str(file), seed=1))
    assert {p.id for p in other.held_out} != {p.id for p in drawn.held_out}


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"n_train": 6}, (6, 4)),
        ({"n_held_out": 3}, (7, 3)),
        ({"n_train": 2, "n_held_out": 3}, (2, 3)),
        ({"held_out_share": 0.01}, (9, 1)),
        ({"held_out_share": 0.99}, (1, 9)),
    ],
)
def test_sizes_of_a_split(file: Path, options: dict, sizes: tuple[int, int]):
    drawn = make_problem_set(JsonlProblems(path=write(file, sums(0, 10)), **options))
    assert (len(drawn.train), len(drawn.held_out)) == sizes


def test_two_files(file: Path, tmp_path: Path):
    held_out = write(tmp_path / "held_out.jsonl", sums(100, 5))
    drawn = make_problem_set(JsonlProblems(path=write(file, sums(0, 8)), held_out_path=held_out))
    assert [p.answer for p in drawn.train] == [str(i + 1000) for i in range(8)]
    assert [p.answer for p in drawn.held_out] == [str(i + 1100) for i in range(5)]
    fewer = make_problem_set(JsonlProblems(path=str(file), held_out_path=held_out, n_train=3, n_held_out=2))
    assert (len(fewer.train), len(fewer.held_out)) == (3, 2)
    with pytest.raises(ConfigError, match=r"problems\.n_held_out = 6: .*held_out\.jsonl has 5 problems"):
        JsonlProblems(path=str(file), held_out_path=held_out, n_held_out=6).draw()


def test_fields_are_kept(file: Path):
    records = [
        {"prompt": " 2+2=? ", "answer": " 4 ", "steps": ["2+2=4"]},
        {"prompt": "3+3=?", "answer": 6.0},
        "",
        {"prompt": "Größe 1?", "answer": "1"},
    ]
    source = JsonlProblems(path=write(file, records), n_train=2)
    by_prompt = {p.prompt: p for side in source.draw() for p in side}
    assert by_prompt[" 2+2=? "].answer == "4"
    assert by_prompt[" 2+2=? "].steps == ("2+2=4",)
    assert by_prompt["3+3=?"].answer == "6.0"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert {p.prompt for side in JsonlProblems(path=str(file)).draw() for p in side} == set(by_prompt)


GOOD = {"prompt": "1+1=?", "answer": "2"}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no problems; give one JSON object a line"),
        (["", "  "], "no problems"),
        (
            [GOOD, '{"prompt": "x", "answer"}'],
            r"line 2: not JSON \(Expecting ':' delimiter at column 25\): \{\"prompt\"",
        ),
        ([GOOD, "", "[1]"], r"line 3: expected an object with 'prompt' and 'answer', got \[1\]"),
        ([GOOD, {"prompt": "x"}], "line 2: lacks 'answer'; it has 'prompt'"),
        ([{}], "line 1: lacks 'prompt' and 'answer'; it has nothing"),
        ([{**GOOD, "solution": 1}], "line 1: unknown field 'solution'; expected prompt, answer, steps"),
        ([{"prompt": 3, "answer": "2"}], "line 1: 'prompt' must be text that is not blank, got 3"),
        ([{"prompt": " ", "answer": "2"}], "line 1: 'prompt' must be text that is not blank"),
        ([{"prompt": "x", "answer": None}], "line 1: 'answer' must be text that is not blank, or a number, got null"),
        ([{"prompt": "x", "answer": True}], "line 1: 'answer' must be"),
        ([{"prompt": "x", "answer": ""}], "line 1: 'answer' must be"),
        ([{**GOOD, "steps": "1+1"}], "line 1: 'steps' must be a list of texts, got"),
        ([{**GOOD, "steps": [1]}], "line 1: 'steps' must be a list of texts"),
        (
            [GOOD, {"prompt": "x", "answer": "two"}],
            "line 2: the answer 'two' is no number; give problems.compare=exact",
        ),
        ([GOOD, {"prompt": "y", "answer": 3}, GOOD], r"lines 1 and 3: the same problem twice \(equal prompts\)"),
        (
            [{"prompt": "What is 2 + 30?", "answer": 32}, {"prompt": "what is  30+2 ?", "answer": 32}],
            "lines 1 and 2: the same problem twice .*canonical form of both prompts is 'what is",
        ),
        ([GOOD], "one problem cannot be split"),
    ],
)
def test_files_that_cannot_be_used(file: Path, records: list, message: str):
    with pytest.raises(InputError, match=message) as raised:
        JsonlProblems(path=write(file, records)).draw()
    assert str(file) in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path, file: Path):
    with pytest.raises(InputError, match=r"nowhere\.jsonl cannot be read \(No such file"):
        JsonlProblems(path=str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(InputError, match="Is a directory"):
        JsonlProblems(path=str(tmp_path))
    file.write_bytes(b'{"prompt": "a", "answer": 1}\n{"prompt": "\xff", "answer": 1}\n')
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        JsonlProblems(path=str(file)).draw()


def test_overlap_of_two_files_names_files_and_lines(file: Path, tmp_path: Path):
    records = [*sums(100, 3), {"prompt": "What is 1000 + 3 ?", "answer": 1003}, sums(7, 1)[0]]
    held_out = write(tmp_path / "held_out.jsonl", records)
    with pytest.raises(InputError) as raised:
        JsonlProblems(path=write(file, sums(0, 10)), held_out_path=held_out).draw()
    message = str(raised.value)
    assert f"{file}, line 4 and {held_out}, line 4" in message
    assert f"{file}, line 8 and {held_out}, line 5" in message


def test_names_may_be_disregarded(file: Path):
    path = write(file, [{"prompt": f"{n} has 2 apples and gets 3. How many?", "answer": 5} for n in ("Ann", "Bob")])
    assert sum(map(len, JsonlProblems(path=path).draw())) == 2
    with pytest.raises(InputError, match="lines 1 and 2: the same problem twice"):
        JsonlProblems(path=path, ignore_names=True).draw()


def test_an_edited_file_is_another_experiment(file: Path):
    from m3i.component import resolved_fields

    path = write(file, sums(0, 5))
    before = JsonlProblems(path=path)
    assert resolved_fields(JsonlProblems(path=path)) == resolved_fields(before)
    assert JsonlProblems(path=path, sha256=before.sha256).sha256 == before.sha256
    write(file, sums(0, 6))
    assert resolved_fields(JsonlProblems(path=path)) != resolved_fields(before)
    with pytest.raises(ConfigError, match=r"problems\.sha256 = .*the hash of the files, which is"):
        JsonlProblems(path=path, sha256=before.sha256)


@pytest.mark.parametrize(
    ("compare", "rule", "reference", "completion", "correct"),
    [
        ("numeric", "last_number", 1000, "that makes 1,000.0", True),
        ("numeric", "last_number", "1/2", "so 0.5", True),
        ("numeric", "last_number", 7, "7 or 8", False),
        ("numeric", "last_number", 7, "seven", False),
        ("exact", "last_word", "nus", "It is: nus.", True),
        ("exact", "last_word", "nus", "It is: Nus.", False),
        ("exact", "after:answer:", "a b", "answer:  a  b", True),
        ("math_verify", "boxed", r"\frac{1}{2}", r"hence \boxed{0.5}", True),
        ("math_verify", "boxed", "x^2 - 1", r"\boxed{(x-1)(x+1)}", True),
        ("math_verify", "boxed", "x^2 - 1", r"\boxed{(x-1)(x+2)}", False),
        ("math_verify", "boxed", "x^2 - 1", "no box", False),
    ],
)
def test_comparisons(file: Path, compare: str, rule: str, reference: Any, completion: str, correct: bool):
    records = [{"prompt": "p", "answer": reference}, {"prompt": "q", "answer": reference}]
    source = JsonlProblems(path=write(file, records), compare=compare, answer=rule)
    (problem,), _ = source.draw()
    verification = source.verify(problem, completion)
    assert verification.correct is correct
    assert verification.answer is None or verification.answer in completion
    assert verification.first_error is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,000", 1000), ("+5", 5), ("−3", -3), ("$4", 4), ("50%", 0.5), ("3/4", 0.75), ("2.50", 2.5), ("1e3", 1000)],
)
def test_numbers(text: str, value: float):
    assert as_number(text) == value


@pytest.mark.parametrize("text", ["", "x", "1/0", "1/2/3", "nan", "inf", "1e999999", "--1"])
def test_no_numbers(text: str):
    assert as_number(text) is None


@given(st.text(), st.text())
def test_no_text_upsets_a_comparison(a: str, b: str):
    assert same_text(a, a)
    assert same_number(a, b) == same_number(b, a)


@pytest.mark.parametrize("text", ["", "$", "\\frac{1}", "]]", "x" * 200, "1/0"])
def test_no_mathematics_upsets_math_verify(text: str):
    assert same_mathematics("1", text) is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, r"problems\.path"),
        ({"n_train": 0}, r"problems\.n_train"),
        ({"n_held_out": -1}, r"problems\.n_held_out"),
        ({"held_out_share": 1.0}, r"problems\.held_out_share"),
        ({"compare": "equal"}, r"problems\.compare = 'equal': expected exact, numeric, math_verify"),
        ({"answer": "first"}, r"problems\.answer"),
    ],
)
def test_bad_options(file: Path, options: dict, message: str):
    path = write(file, sums(0, 4))
    with pytest.raises(ConfigError, match=message):
        JsonlProblems(**{"path": path, **options})


@pytest.mark.parametrize("options", [{"n_train": 4}, {"n_held_out": 9}])
def test_nothing_left_on_one_side(file: Path, options: dict):
    with pytest.raises(ConfigError, match="has 4 problems"):
        JsonlProblems(path=write(file, sums(0, 4)), **options).draw()
