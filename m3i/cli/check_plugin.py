"""`m3i check-plugin`: the contract on every component of a plugin."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from m3i.errors import M3IError

if TYPE_CHECKING:
    from m3i.contract.run import Check

USAGE = (
    "usage: m3i check-plugin NAME, with NAME a distribution (acme-m3i), an import package (acme_m3i) or one component "
    "(selector/acme)"
)
OK, FAILED, NOT_CHECKED = "ok", "FAILED", "not checked"


def check_plugin_command(arguments: list[str]) -> None:
    """m3i check-plugin NAME: runs the contract on every component of a plugin, ours or yours."""
    from m3i.contract.run import checks_of

    if arguments in (["-h"], ["--help"]):
        print(USAGE)
        return
    if len(arguments) != 1 or not arguments[0] or arguments[0].startswith("-"):
        raise M3IError(USAGE)
    (name,) = arguments
    found = checks_of(name)
    counts: Counter[str] = Counter()
    first = next(iter(found)).subject.entry
    print(f"{name}: {first.distribution} {first.version}\n")
    for rows in _by_component_and_title(found):
        outcomes = [outcome_of(check) for check in rows]
        counts.update(word for word, _ in outcomes)
        worse = [(word, reason) for word, reason in outcomes if word != OK] or [(OK, "")]
        for word, reason in worse:
            print(_line(f"{rows[0].subject}  {rows[0].title}: {word}{f': {reason}' if reason else ''}"))
    print(f"\n{len(found)} checks: {', '.join(f'{counts[word]} {word}' for word in (OK, FAILED, NOT_CHECKED))}")
    if counts[FAILED]:
        times = "once" if counts[FAILED] == 1 else f"{counts[FAILED]} times"
        raise M3IError(f"'{name}' breaks the contract {times}; the lines above say where and what to do")


def outcome_of(check: Check) -> tuple[str, str]:
    """`ok`, `FAILED` or `not checked`, and the reason in one line."""
    from m3i.contract.subject import ContractError, NotStatedError

    try:
        check()
    except NotStatedError as error:
        return NOT_CHECKED, str(error)
    except ContractError as error:
        return FAILED, str(error)
    return OK, ""


def _by_component_and_title(checks: Iterable[Check]) -> Iterable[list[Check]]:
    for _, rows in itertools.groupby(checks, key=lambda check: (str(check.subject), check.title)):
        yield list(rows)


def _line(text: str) -> str:
    """One line of a plugin's words for the screen: no keys, and nothing that could move the cursor."""
    from m3i.ledger.secrets import redact
    from m3i.wording.formats import visible

    return str(visible(redact(" ".join(text.splitlines()))))
