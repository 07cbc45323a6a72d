"""Reads the answer from a completion, for sources that check only the answer."""

from __future__ import annotations

import re
from collections.abc import Callable

from m3i.component import require

NUMBER = re.compile(r"(?<![\w.])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?(?!\w)")
"""Matches an integer, a decimal or a fraction, optionally with commas between thousands."""


def last_number(text: str) -> str | None:
    """Returns the last number in the text."""
    found = [match.group() for match in NUMBER.finditer(text)]
    return found[-1] if found else None


def last_line(text: str) -> str | None:
    """Returns the last line that is not blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


def last_word(text: str) -> str | None:
    """Returns the last word, without surrounding punctuation."""
    words = [stripped for word in text.split() if (stripped := word.strip(".,;:!?\"'()[]`*"))]
    return words[-1] if words else None


def whole(text: str) -> str | None:
    """Returns the whole completion, without surrounding white space."""
    return text.strip() or None


def boxed(text: str) -> str | None:
    r"""Returns the content of the last `\boxed{...}`, up to its matching brace."""
    start = text.rfind("\\boxed{")
    depth, begin = 0, start + len("\\boxed{")
    for i in range(begin - 1, len(text) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i].strip() or None
    return None


def tag(text: str) -> str | None:
    """Returns the content of the last `<answer>...</answer>`."""
    found = re.findall(r"<answer>(.*?)</answer>", text, flags=re.DOTALL)
    return (found[-1].strip() or None) if found else None


RULES: dict[str, Callable[[str], str | None]] = {
    "last_number": last_number,
    "last_line": last_line,
    "last_word": last_word,
    "whole": whole,
    "boxed": boxed,
    "tag": tag,
}
"""Rules without an argument. Two more take one: `after:MARKER` (the rest of the line after the last marker) and
`pattern:REGEX` (the first group of the last match, or the whole match if the pattern has no group)."""


def check_rule(name: str, rule: str) -> None:
    """Raises ConfigError if the option `name` does not hold a known rule."""
    kind, colon, argument = rule.partition(":")
    known = (not colon and kind in RULES) or (kind in ("after", "pattern") and bool(argument))
    require(known, name, rule, f"{', '.join(RULES)}, after:MARKER or pattern:REGEX")
    if kind == "pattern":
        try:
            re.compile(argument)
        except re.error as error:
            require(False, name, rule, f"a regular expression after 'pattern:' ({error})")


def read_answer(text: str, rule: str) -> str | None:
    """Returns the answer, verbatim from the text, by a rule that `check_rule` accepted; None if there is no answer."""
    kind, _, argument = rule.partition(":")
    if kind == "after":
        start = text.rfind(argument)
        rest = text[start + len(argument) :].split("\n", 1)[0].strip() if start >= 0 else ""
        return rest.rstrip(".") or None
    if kind == "pattern":
        matches = list(re.finditer(argument, text))
        found = (matches[-1].group(1) if matches[-1].re.groups else matches[-1].group()) if matches else None
        return found.strip() or None if found is not None else None
    return RULES[kind](text)
