"""Reads the answer out of a completion, for sources that check answers alone."""

from __future__ import annotations

import re
from collections.abc import Callable

from m3i.component import require

NUMBER = re.compile(r"(?<![\w.])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?(?!\w)")
"""An integer, a decimal or a fraction, perhaps with thousands commas."""


def last_number(text: str) -> str | None:
    """The last number in the text."""
    found = [match.group() for match in NUMBER.finditer(text)]
    return found[-1] if found else None


def last_line(text: str) -> str | None:
    """The last line that is not blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


def last_word(text: str) -> str | None:
    """The last word, without the punctuation around it."""
    words = [stripped for word in text.split() if (stripped := word.strip(".,;:!?\"'()[]`*"))]
    return words[-1] if words else None


def whole(text: str) -> str | None:
    """The whole completion, without the white space around it."""
    return text.strip() or None


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}`, braces balanced."""
    start = text.rfind("\\boxed{")
    depth, begin = 0, start + len("\\boxed{")
    for i in range(begin - 1, len(text) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i].strip() or None
    return None


def tag(text: str) -> str | None:
    """The content of the last `<answer>...</answer>`."""
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
"""Rules without an argument. `after:MARKER` (rest of the line after the last marker) and `pattern:REGEX` (first group
of the last match, or all of it) take one."""


def check_rule(name: str, rule: str) -> None:
    """Checks the option that names a rule. Raises ConfigError."""
    kind, colon, argument = rule.partition(":")
    known = (not colon and kind in RULES) or (kind in ("after", "pattern") and bool(argument))
    require(known, name, rule, f"{', '.join(RULES)}, after:MARKER or pattern:REGEX")
    if kind == "pattern":
        try:
            re.compile(argument)
        except re.error as error:
            require(False, name, rule, f"a regular expression after 'pattern:' ({error})")


def read_answer(text: str, rule: str) -> str | None:
    """The answer, verbatim as it stands in the text, by a rule that `check_rule` accepted; None where there is none."""
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
