"""The problem source `jsonl`."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from m3i import Component, ConfigError, InputError, Problem, Verification, require
from m3i.problems.answers import check_rule, read_answer
from m3i.problems.canonical import split_by_hash

from .compare import COMPARISONS, INSTALL, as_number
from .records import Placed, read_problems, require_disjoint


@dataclass(kw_only=True)
class JsonlProblems(Component):
    """Your own problems: a JSONL file with `prompt`, `answer` and optionally `steps` on each line.

    Two prompts are the same problem if they agree after white space is collapsed, case is folded, and plain sums and
    products are put in order (`ignore_names` also disregards names). A problem that occurs twice, or on both sides, is
    an error.
    """

    libraries: ClassVar[tuple[str, ...]] = ("math-verify",)

    path: str
    """The file; split into train and held-out problems by hash unless `held_out_path` is given."""
    held_out_path: str | None = None
    """File of the held-out problems; `path` then holds only train problems."""
    n_train: int | None = None
    """Number of train problems, ≥ 1; unset: all that are not held out."""
    n_held_out: int | None = None
    """Number of held-out problems, ≥ 1; unset: all of `held_out_path`, or `held_out_share` of the file."""
    held_out_share: float = 0.4
    """Share of the file that is held out if no number is given, in (0, 1)."""
    seed: int = 0
    """Seed of the split, and of the choice if fewer problems are requested than there are."""
    compare: str = "numeric"
    """How an answer is compared with the reference: `exact` (text up to white space), `numeric` (`1,000` = `1000.0`) or
    `math_verify` (symbolic; needs the extra `math`)."""
    answer: str = "last_number"
    """How the answer is read from a completion: last_number, last_word, last_line, whole, boxed, tag, `after:MARKER` or
    `pattern:REGEX`."""
    ignore_names: bool = False
    """Whether prompts that differ only in capitalised words are the same problem."""
    sha256: str = ""
    """SHA-256 of the files, so that an edited file is another experiment; computed if empty, checked if given."""

    def __post_init__(self) -> None:
        """Checks the values and hashes the files. Raises ConfigError, or InputError for a file that cannot be read."""
        require(bool(self.path), "problems.path", self.path, "a JSONL file")
        for name in ("n_train", "n_held_out"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"problems.{name}", value, "an integer ≥ 1, or nothing")
        require(0 < self.held_out_share < 1, "problems.held_out_share", self.held_out_share, "a number in (0, 1)")
        require(self.compare in COMPARISONS, "problems.compare", self.compare, ", ".join(COMPARISONS))
        check_rule("problems.answer", self.answer)
        if self.compare == "math_verify" and importlib.util.find_spec("math_verify") is None:
            raise ConfigError(f"problems.compare = math_verify needs the package math-verify; run: {INSTALL}")
        found = hashlib.sha256(b"".join(_digest(path) for path in self.paths())).hexdigest()
        require(self.sha256 in ("", found), "problems.sha256", self.sha256, f"the hash of the files, which is {found}")
        self.sha256 = found

    def paths(self) -> list[Path]:
        """The problem files."""
        return [Path(path).expanduser() for path in (self.path, self.held_out_path) if path is not None]

    def draw(self) -> tuple[list[Problem], list[Problem]]:
        """Returns train and held-out problems. Raises InputError for a file that cannot be used, naming the lines."""
        files = [read_problems(path, names=self.ignore_names) for path in self.paths()]
        for placed in (p for file in files for p in file):
            self._require_comparable(placed)
        if len(files) == 1:
            return self._split(files[0])
        train, held_out = files
        require_disjoint(train, held_out)
        return self._some(train, self.n_train, "n_train"), self._some(held_out, self.n_held_out, "n_held_out")

    def _split(self, pool: list[Placed]) -> tuple[list[Problem], list[Problem]]:
        if len(pool) < 2:
            raise InputError(
                f"{pool[0].file}: one problem cannot be split into train and held-out; add problems.held_out_path"
            )
        if self.n_held_out is not None:
            n_held_out = self.n_held_out
        elif self.n_train is not None:
            n_held_out = len(pool) - self.n_train
        else:
            n_held_out = min(max(round(self.held_out_share * len(pool)), 1), len(pool) - 1)
        n_train = len(pool) - n_held_out if self.n_train is None else self.n_train
        if min(n_train, n_held_out) < 1:
            raise ConfigError(
                f"{pool[0].file} has {len(pool)} problems, which leaves {n_train} train and {n_held_out} held-out "
                "ones; lower problems.n_train or problems.n_held_out"
            )
        return split_by_hash([p.problem for p in pool], n_train, n_held_out, self.seed)

    def _some(self, pool: list[Placed], n: int | None, name: str) -> list[Problem]:
        problems = [p.problem for p in pool]
        if n is None:
            return problems
        if n > len(problems):
            raise ConfigError(f"problems.{name} = {n}: {pool[0].file} has {len(problems)} problems")
        return split_by_hash(problems, n, 0, self.seed)[0]

    def _require_comparable(self, placed: Placed) -> None:
        if self.compare == "numeric" and as_number(placed.problem.answer) is None:
            raise InputError(
                f"{placed.where}: the answer {placed.problem.answer!r} is not a number; "
                "set problems.compare=exact or math_verify"
            )

    def verify(self, problem: Problem, completion: str) -> Verification:
        """Checks whether the answer read from the completion equals the reference; steps are not checked."""
        answer = read_answer(completion, self.answer)
        return Verification(
            correct=answer is not None and COMPARISONS[self.compare](problem.answer, answer), answer=answer
        )


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise InputError(f"problem file {path} cannot be read ({error.strerror})") from None
