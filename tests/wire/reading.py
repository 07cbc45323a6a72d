"""What the server's minds understand of a prompt: fenced fields, numbered lines, simple arithmetic."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

FIELD = re.compile(r"^(?P<fence>\S{4,}) (?P<name>[A-Z][A-Z ]*)\n(?P<text>.*?)\n(?P=fence) END (?P=name)$", re.M | re.S)
TAGGED = re.compile(r"<(?P<name>[a-z][\w-]*)[^<>]*>\n?(?P<text>.*?)\n?</(?P=name)>", re.S)
NUMBERED = re.compile(r"^(\d{1,6})[|.:)] ?(.*)$", re.M)
SUM = re.compile(r"(?<![\d.*/+-])(-?\d+(?:\s*[-+*/x×]\s*\d+)+)\s*=\s*(-?\d+(?:\.\d+)?)(?![\d.]|\s*[-+*/x×])")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def fields(text: str) -> dict[str, str]:
    """Data fields of a prompt by lower-case name: between two lines with one fence, or between tags."""
    found = {m["name"].lower(): m["text"] for m in TAGGED.finditer(text)}
    return found | {m["name"].lower().replace(" ", "_"): m["text"] for m in FIELD.finditer(text)}


def field_like(text: str, *words: str) -> str:
    """The first field whose name holds one of the words; empty if there is none."""
    return next((value for name, value in fields(text).items() if any(w in name for w in words)), "")


def value_of(expression: str) -> float | None:
    """The value of a sum or product with the usual precedence; None for anything else."""
    try:
        tree = ast.parse(re.sub("[x×]", "*", expression.strip()), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return _value(tree)


def _value(node: ast.AST) -> float | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = _value(node.left), _value(node.right)
        if left is not None and right is not None and not (isinstance(node.op, ast.Div) and right == 0):
            return OPERATORS[type(node.op)](left, right)
    return None


@dataclass(frozen=True)
class Mistake:
    """A wrong `a op b = c` in a numbered line."""

    step: int
    quote: str
    correction: str


def steps(trace: str) -> list[tuple[int, str]]:
    """Numbered lines; lines without numbers count from 1."""
    numbered = [(int(n), line) for n, line in NUMBERED.findall(trace)]
    return numbered or [(i, line) for i, line in enumerate(filter(str.strip, trace.split("\n")), 1)]


def mistakes(trace: str) -> list[Mistake]:
    """Every wrong calculation, with what is right."""
    found = []
    for step, line in steps(trace):
        for match in SUM.finditer(line):
            value = value_of(match[1])
            if value is not None and abs(value - float(match[2])) > 1e-6:
                right = match[0][: match.start(2) - match.start()] + f"{value:g}"
                found.append(Mistake(step, match[0], right))
    return found


def last_number(text: str) -> float | None:
    """The answer of a text: its last number."""
    numbers = NUMBER.findall(text)
    return float(numbers[-1]) if numbers else None


def right_answer(text: str) -> float | None:
    """Of the problem in a prompt: the reference if it is shown, else the value of the problem's own expression."""
    reference = last_number(field_like(text, "reference"))
    if reference is not None:
        return reference
    problem = field_like(text, "problem", "question")
    found = re.search(r"-?\d+(?:\s*[-+*/x×]\s*\d+)+", problem)
    return value_of(found[0]) if found else None
