"""Checks a written-out solution step by step: recomputes every step and finds the first wrong one.

The public names are `check_solution` (what is wrong, and where), `repair_solution` (the same reasoning with the first
wrong step corrected and worked to the end), `correct_solution` and `parse_line`. Nothing here raises on a model's text,
whatever it contains; only a prompt that is not an arithmetic problem is an error.

Any order of work that the rules of arithmetic allow is correct: a step must take its operands from what is left of the
problem, and its result replaces them. Checking stops at the first wrong step, since what follows builds on it.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from .expressions import Expression, parse_expression, render_completion, solve
from .reduction import reduce_expression

_STEP = re.compile(r"\s*(-?\d{1,12})\s*([-+*])\s*(\d{1,12})\s*=\s*(-?\d{1,24})\s*", re.ASCII)
_ANSWER = re.compile(r"\s*answer\s*[:=]?\s*(-?\d{1,24})\s*", re.ASCII | re.IGNORECASE)


class ErrorKind(StrEnum):
    """What is wrong with a step."""

    RESULT = "arithmetic"
    """The operands are correct, the result is miscalculated."""
    OPERAND = "wrong_operand"
    """A number comes neither from the problem nor from an earlier result."""
    OPERATION = "wrong_operation"
    """Both numbers are at hand, but not joined by this operation."""
    SKIPPED = "skipped_step"
    """A step is missing: its result is used, or the answer is given, before it was worked out."""
    ANSWER = "wrong_answer"
    """The answer is not the result of the last step."""
    FORMAT = "format"
    """The line is neither a step nor an answer, or the text ends before an answer, or continues after it."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a completion, parsed."""

    start: int
    """Character at which the line begins in the completion."""
    end: int
    """Character after its last one; the newline is not part of it."""
    text: str
    """`completion[start:end]`."""
    operands: tuple[int, int] | None
    """The two numbers of a step; None for an answer and for anything else."""
    operator: str
    """`+`, `-` or `*` of a step, `answer` for an answer, empty for anything else."""
    result: int
    """The number that a step or an answer states; 0 for anything else."""


@dataclass(frozen=True, kw_only=True)
class WrongStep:
    """The first wrong step of a completion."""

    kind: ErrorKind
    """What is wrong."""
    index: int
    """Index of the line, counted from 0 without blank lines; the number of lines if the text ends too early."""
    start: int
    """Character of the completion at which the line begins."""
    end: int
    """Character after its last one; equal to `start` only if the text ends too early."""
    quote: str
    """`completion[start:end]`, verbatim."""
    focus: int
    """First character, counted in the completion, at which the line departs from `corrected`."""
    corrected: str
    """The line that should have been written here, without a newline."""
    reason: str
    """One sentence for a reader."""


@dataclass(frozen=True, kw_only=True)
class SolutionCheck:
    """The result of checking a completion."""

    lines: tuple[Line, ...]
    """Every non-blank line."""
    steps_right: int
    """Number of lines before the first wrong one; all of them if none is wrong."""
    first_wrong: WrongStep | None
    """The first wrong step; None if every line is correct and there is an answer."""
    answer: int | None
    """The number on the last answer line; None if there is none."""
    answer_right: bool
    """Whether `answer` is the value of the problem."""

    @property
    def right(self) -> bool:
        """Whether every step and the answer are correct."""
        return self.first_wrong is None


def parse_line(text: str, start: int) -> Line:
    """Parses one line as a step, an answer or neither.

    Args:
        text: The line without its newline.
        start: Character of the completion at which the line begins.
    """
    line = Line(start=start, end=start + len(text), text=text, operands=None, operator="", result=0)
    step, answer = _STEP.fullmatch(text), _ANSWER.fullmatch(text)
    if step is not None:
        left, operator, right, result = step.groups()
        return replace(line, operands=(int(left), int(right)), operator=operator, result=int(result))
    if answer is not None:
        return replace(line, operator="answer", result=int(answer.group(1)))
    return line


def parse_lines(completion: str) -> tuple[Line, ...]:
    """Returns every non-blank line of a completion, with its place."""
    lines, start = [], 0
    for text in completion.split("\n"):
        if text.strip():
            lines.append(parse_line(text, start))
        start += len(text) + 1
    return tuple(lines)


def correct_solution(prompt: str) -> str:
    """Returns the correct completion of a prompt: products first, then the sum from left to right.

    Raises:
        ValueError: If the prompt is not an arithmetic problem.
    """
    return render_completion(parse_expression(prompt))


def check_solution(prompt: str, completion: str) -> SolutionCheck:
    """Recomputes a written-out solution line by line up to its first wrong step.

    Args:
        prompt: The problem, such as `48+7*6-15=?`.
        completion: Any text.

    Returns:
        The lines, the first wrong one with its correction, and whether the answer is correct.

    Raises:
        ValueError: If the prompt is not an arithmetic problem.
    """
    return _walk(prompt, completion)[0]


def repair_solution(prompt: str, completion: str) -> str:
    """Returns the completion with its first wrong step corrected and the rest worked out from there.

    The lines before the first wrong step stay as written; a miscalculated step keeps its operands. A correct completion
    is returned unchanged.

    Raises:
        ValueError: If the prompt is not an arithmetic problem.
    """
    check, continuation = _walk(prompt, completion)
    if check.first_wrong is None:
        return completion
    kept = completion[: check.first_wrong.start]
    return kept + ("\n" if kept and not kept.endswith("\n") else "") + continuation


def _walk(prompt: str, completion: str) -> tuple[SolutionCheck, str]:
    """The check, and the correct text that belongs at the start of the first wrong line."""
    problem = parse_expression(prompt)
    lines = parse_lines(completion)
    answers = [line.result for line in lines if line.operator == "answer"]
    # The empty line after the text stands for what is missing from a text that ends too early.
    ended = (*lines, parse_line("", len(completion)))
    index, fault = _first_fault(problem, ended)
    check = SolutionCheck(
        lines=lines,
        steps_right=index,
        first_wrong=None if fault is None else _wrong_step(ended[index], index, fault),
        answer=answers[-1] if answers else None,
        answer_right=bool(answers) and answers[-1] == problem.value,
    )
    return check, "" if fault is None else fault.continuation


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """Why a line is wrong, before its place in the text is determined."""

    kind: ErrorKind
    corrected: str
    reason: str
    continuation: str


def _expected(kind: ErrorKind, left: Expression, reason: str) -> _Fault:
    """A fault whose correction is the next line of the usual solution of what is left."""
    return _Fault(kind=kind, corrected=solve(left)[0], reason=reason, continuation=render_completion(left))


def _first_fault(problem: Expression, lines: tuple[Line, ...]) -> tuple[int, _Fault | None]:
    """Index and fault of the first wrong line; if none is wrong, the index of the closing line and None.

    The last of `lines` is empty and marks the end of the text.
    """
    left, answered = problem, False
    for index, line in enumerate(lines[:-1]):
        if answered:
            reason = "the text continues after the answer"
            return index, _Fault(kind=ErrorKind.FORMAT, corrected="", reason=reason, continuation="")
        fault = _judge_line(line, left)
        if fault is not None:
            return index, fault
        answered = line.operator == "answer"
        if not answered:
            after = _reduce(left, line, line.result)
            assert after is not None, "a line that was judged correct is an operation of what is left"
            left = after
    end = len(lines) - 1
    return end, None if answered else _expected(ErrorKind.FORMAT, left, "the text ends before an answer")


def _reduce(left: Expression, line: Line, result: int) -> Expression | None:
    """What is left after a step, if it had this result; None if its operation is not in `left`."""
    assert line.operands is not None
    return reduce_expression(left, line.operands[0], line.operator, line.operands[1], result)


def _judge_line(line: Line, left: Expression) -> _Fault | None:
    """What is wrong with a line given what is left to work out; None if nothing is."""
    if line.operator == "":
        return _expected(ErrorKind.FORMAT, left, "the line is neither a step nor an answer")
    if line.operator == "answer":
        if left.operations:
            return _expected(ErrorKind.SKIPPED, left, f"the answer comes before {left} was worked out")
        if line.result != left.value:
            return _expected(ErrorKind.ANSWER, left, f"the last result is {left.value}, not {line.result}")
        return None
    assert line.operands is not None
    a, b = line.operands
    true_result = {"+": a + b, "-": a - b, "*": a * b}[line.operator]
    after = _reduce(left, line, true_result)
    if after is None:
        return _explain_operands(left, line)
    if line.result == true_result:
        return None
    step = f"{a}{line.operator}{b}"
    return _Fault(
        kind=ErrorKind.RESULT,
        corrected=f"{step}={true_result}",
        reason=f"{step} is {true_result}, not {line.result}",
        continuation=f"{step}={true_result}\n{render_completion(after)}",
    )


def _explain_operands(left: Expression, line: Line) -> _Fault:
    """Why no operation of what is left joins the two numbers of a step."""
    assert line.operands is not None
    numbers = [abs(number) for number in line.operands]
    at_hand = {factor for term in left.terms for factor in term.factors}
    unworked = {abs(term.value) for term in left.terms if len(term.factors) > 1}
    for number in numbers:
        if number not in at_hand and number in unworked:
            return _expected(ErrorKind.SKIPPED, left, f"{number} is used before it was worked out")
    for number in numbers:
        if number not in at_hand:
            return _expected(ErrorKind.OPERAND, left, f"{number} is not in what is left of the problem, {left}")
    step = line.text.partition("=")[0].strip()
    return _expected(ErrorKind.OPERATION, left, f"{step} is not an operation of what is left of the problem, {left}")


def _wrong_step(line: Line, index: int, fault: _Fault) -> WrongStep:
    """The fault with its place in the completion."""
    shared = 0
    for written, right in zip(line.text, fault.corrected, strict=False):
        if written != right:
            break
        shared += 1
    return WrongStep(
        kind=fault.kind,
        index=index,
        start=line.start,
        end=line.end,
        quote=line.text,
        focus=min(line.start + shared, max(line.start, line.end - 1)),
        corrected=fault.corrected,
        reason=fault.reason,
    )
