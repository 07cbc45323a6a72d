"""Whether two results say the same: `python bench/same_results.py ONE OTHER`, files result.json or sweep.json.

For changes that are to change nothing, such as moving modules: run the experiment before and after, each with a store
of its own, and compare. Left out is what every run has of its own (times, memory, folders, how the store answered)
and what a changed source changes by design (keys, ids, source hashes). Everything else must be equal to the bit.

Prints every difference and ends with 1 if there is one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OWN = re.compile(
    r"(^|_)(created|made_at|at|time_s|made_in_s|own_s|shared_s|made_s|alone_s|saved_s|hits_s|peak_memory_bytes|key|id|why"
    r"|hit|source|command|overrides|folder|folders|root)$"
)
"""Names of fields that belong to one run or to one state of the source."""
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:?\d\d)?")
"""A moment in a sentence, which belongs to one run too."""


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """One line per value that differs, with its path."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            place = f"{path}.{name}" if path else name
            if name not in one or name not in other:
                yield f"{place}: only in {'the second' if name not in one else 'the first'}"
            elif not (OWN.search(name) and name != "problem_id"):
                yield from differences(one[name], other[name], place)
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{path}: {len(one)} against {len(other)} elements"
        for i, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, f"{path}[{i}]")
    elif _timeless(one) != _timeless(other):
        yield f"{path}: {str(one)[:60]} against {str(other)[:60]}"


def _timeless(value: Any) -> Any:
    return MOMENT.sub("TIME", value) if isinstance(value, str) else value


def main(arguments: list[str]) -> int:
    """Compares two files; 1 if they differ, 2 on wrong usage."""
    if len(arguments) != 2:
        print("usage: python bench/same_results.py ONE OTHER", file=sys.stderr)
        return 2
    one, other = (json.loads(Path(a).read_text(encoding="utf-8")) for a in arguments)
    found = list(differences(one, other))
    print("\n".join([*found[:50], f"{len(found)} differences"]) if found else "the same")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
