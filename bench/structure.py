"""The structure of m3i in figures: `python bench/structure.py [--rooms]`, from the root of a checkout.

A room is a module or package directly in m3i/. An arrow is a pair of rooms of which one imports the other, wherever the
import stands; imports for type checkers alone do not count. A room's floor is one more than the longest chain of arrows
below it. A circle is a group of rooms that reach each other. Needs grimp, which import-linter brings (`pip install -e
'.[dev]'`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp


def rooms_of(package: str) -> dict[str, set[str]]:
    """Room → the rooms that it imports."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    below: dict[str, set[str]] = {child.removeprefix(f"{package}."): set() for child in graph.find_children(package)}
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            one, two = (name.removeprefix(f"{package}.").split(".")[0] for name in (module, other))
            if one != two and one in below and two in below:
                below[one].add(two)
    return below


def circles_of(below: Mapping[str, set[str]]) -> list[set[str]]:
    """Groups of rooms that reach each other."""
    reached = {room: {room} for room in below}
    for _ in below:
        for room in below:
            reached[room] |= set().union(*(reached[other] for other in below[room]))
    groups = {frozenset(o for o in reached[room] if room in reached[o]) for room in below}
    return [set(group) for group in groups if len(group) > 1]


def floors_of(below: Mapping[str, set[str]]) -> dict[str, int]:
    """Room → its floor, the ground being 1. Empty if there is a circle."""
    floors: dict[str, int] = {}
    try:
        for room in TopologicalSorter(below).static_order():
            floors[room] = 1 + max((floors[other] for other in below[room]), default=0)
    except CycleError:
        return {}
    return floors


def main() -> None:
    """Prints the figures, and with --rooms every room with its floor and what it imports."""
    sys.path.insert(0, os.getcwd())
    below = rooms_of("m3i")
    floors, circles = floors_of(below), circles_of(below)
    loose = sorted(path.stem for path in Path("m3i").glob("*.py") if path.stem != "__init__")
    print(f"rooms    {len(below)}, of which loose modules {len(loose)}: {', '.join(loose)}")
    print(f"floors   {max(floors.values()) if floors else 'none: there is a circle'}")
    print(f"arrows   {sum(map(len, below.values()))}")
    print(f"circles  {len(circles)}{''.join(f'; {chr(44).join(sorted(c))}' for c in circles)}")
    if "--rooms" in sys.argv:
        for room in sorted(below, key=lambda r: (-floors.get(r, 0), r)):
            print(f"{floors.get(room, '?'):>3}  {room:<12} {' '.join(sorted(below[room]))}")


if __name__ == "__main__":
    main()
