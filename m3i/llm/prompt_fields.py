"""Prompts from plain text files, with data in fenced fields that it cannot break out of.

A prompt file is text in sections, with placeholders such as `{problem}`. It is split with a regular expression, never
formatted, so braces in data have no effect. Each data field stands between two lines that begin with a fence:

    ==3f9a0c1b== TRACE
    1| 2+3=5
    ==3f9a0c1b== END TRACE

Three guards keep data in its field:

1. The fence occurs in none of the prompt's fields, in any spelling (case, width, spaces between its digits).
2. Data is a separate `Part`: a model that is tokenised locally reads no control token in it (m3i_llamacpp).
3. Characters that could pass for a line break, or that cannot be sent, are replaced one by one (`shown`).

The fence is a hash of the problem's fields, so all prompts about one problem begin with the same text and a provider's
cache can serve it. If that hash occurs in a later field, the fence becomes a hash of all fields, and that one prompt
shares only its rubric with the others.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from m3i.errors import ConfigError, InputError
from m3i.ledger.request import Block, Message

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
SECTION = re.compile(r"^<!-- ([a-z]+) -->$", re.MULTILINE)
HEADER = re.compile(r"<!-- (\S.*\S) -->")
FENCE_DIGITS = 8
REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Part:
    """A piece of a prompt."""

    text: str
    is_data: bool
    """Whether the text is from the experiment (problem, trace, answer), to be tokenised without control tokens."""


def merged(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Joins adjacent parts of one kind and drops empty ones, so fewer texts are tokenised separately."""
    result: list[Part] = []
    for part in parts:
        if result and result[-1].is_data == part.is_data:
            result[-1] = Part(result[-1].text + part.text, part.is_data)
        elif part.text:
            result.append(part)
    return tuple(result)


def shown(text: str) -> str:
    """Returns data as a prompt shows it: the same text with a few characters replaced.

    Newline and tab stay. Other control characters become their Unicode pictures (`\\r` is `␍`) or `�`, and other line
    and paragraph separators, lone surrogates and invisible tag characters become `�`. Each character is replaced by
    exactly one, so offsets in the shown text are offsets in the original.
    """
    return "".join(map(_shown, text)) if _UNSAFE.search(text) else text


_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\U000e0000-\U000e007f]")


def _shown(character: str) -> str:
    if not _UNSAFE.match(character):
        return character
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else REPLACEMENT


def fence(*texts: str, later: Sequence[str] = ()) -> str:
    """Returns a delimiter that occurs in none of the texts, in any spelling.

    Args:
        texts: The fence depends only on these, unless it would occur in `texts` or `later`.
        later: Other texts in the prompt; from the second candidate on, the fence depends on them too.
    """
    bare = [_bare(text) for text in (*texts, *later)]
    for count in itertools.count():
        seeds = (str(count), *texts, *(sorted(later) if count else ()))
        digest = hashlib.sha256("\0".join(seeds).encode("utf-8", "surrogatepass")).hexdigest()
        digits = digest[: FENCE_DIGITS + count // 256]
        if not any(digits in text for text in bare):
            return f"=={digits}=="
    raise AssertionError("a finite text holds finitely many fences")


def _bare(text: str) -> str:
    """Returns only the letters and digits, with compatibility forms and case folded."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded))


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The placeholders that a section of a prompt file may hold."""

    data: tuple[str, ...] = ()
    """Required, each alone on its line; replaced by a fenced field."""
    words: tuple[str, ...] = ()
    """Optional, anywhere in the section; replaced by text of this package."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt in three pieces: shared by all items, shared by the items of one problem, and the item's own."""

    system: tuple[Part, ...]
    problem: tuple[Part, ...]
    item: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The user's turn: problem and item, merged."""
        return merged((*self.problem, *self.item))

    def system_blocks(self) -> tuple[Block, ...]:
        """Returns the blocks for `ModelRequest.system`."""
        return (Block(text=text_of(self.system), cache=True),)

    def messages(self) -> tuple[Message, ...]:
        """Returns the messages for `ModelRequest.messages`."""
        problem, item = Block(text=text_of(self.problem), cache=True), Block(text=text_of(self.item))
        return (Message(role="user", blocks=(problem, item)),)


def text_of(parts: Iterable[Part]) -> str:
    """Returns the text of the parts, joined."""
    return "".join(part.text for part in parts)


@dataclass(frozen=True)
class Template:
    """A prompt file, checked against its layout."""

    where: str
    """File name, for messages."""
    text: str
    layout: Mapping[str, Slots]
    """Section → its placeholders, in the order of the file; the first section has no heading."""
    title: str = field(init=False)
    """Name and version, as in `m3i audit 1`, from the comment on the first line, which is not sent."""
    sections: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Splits and checks the text. Raises ConfigError that names file, section and placeholder."""
        names = list(self.layout)
        first, _, rest = self.text.partition("\n")
        header = HEADER.fullmatch(first.strip())
        if header is None:
            raise ConfigError(f"{self.where}: the first line must be a comment with name and version: <!-- mine 1 -->")
        object.__setattr__(self, "title", header.group(1))
        pieces = SECTION.split(rest)
        found = [names[0], *pieces[1::2]]
        if found != names:
            raise ConfigError(
                f"{self.where}: sections {', '.join(found[1:]) or '(none)'}; expected the lines "
                f"{', '.join(f'<!-- {name} -->' for name in names[1:])}, in this order"
            )
        texts = (piece.strip("\n") for piece in pieces[::2])
        object.__setattr__(self, "sections", dict(zip(names, texts, strict=True)))
        for name in names:
            self._check(name)

    def _check(self, section: str) -> None:
        slots, text = self.layout[section], self.sections[section]
        for name in PLACEHOLDER.findall(text):
            if name not in (*slots.data, *slots.words):
                known = ", ".join(f"{{{n}}}" for n in (*slots.data, *slots.words)) or "none"
                raise ConfigError(
                    f"{self.where}: section {section!r} holds the unknown placeholder {{{name}}}; it may hold: {known}"
                )
        for name in slots.data:
            if text.count(f"{{{name}}}") != 1 or f"{{{name}}}" not in text.split("\n"):
                raise ConfigError(
                    f"{self.where}: section {section!r} must hold the placeholder {{{name}}} once, alone on its line"
                )

    def prompt(
        self,
        *,
        problem: Mapping[str, Mapping[str, str]],
        item: Mapping[str, Mapping[str, str]],
        words: Mapping[str, str],
    ) -> Prompt:
        """Builds a prompt from sections.

        Args:
            problem: Section → data fields, for the sections that depend only on the problem.
            item: The same for the sections that follow.
            words: Placeholder → text of this package.
        """
        safe = [
            {section: {k: shown(v) for k, v in fields.items()} for section, fields in part.items()}
            for part in (problem, item)
        ]
        stable, later = ([text for fields in part.values() for text in fields.values()] for part in safe)
        mark = fence(*stable, later=later)
        blocks = [
            [part for section, fields in chosen.items() for part in self._section(section, fields, words, mark)]
            for chosen in safe
        ]
        rubric = self._section(next(iter(self.layout)), {}, words, "")
        # The last part of a section is the blank line after it, which is dropped at the end of a turn.
        return Prompt(system=merged(rubric[:-1]), problem=merged(blocks[0]), item=merged(blocks[1][:-1]))

    def say(self, section: str, words: Mapping[str, str]) -> str:
        """Returns the text of a section that has no data fields."""
        return text_of(self._section(section, {}, words, "")[:-1])

    def _section(self, section: str, data: Mapping[str, str], words: Mapping[str, str], mark: str) -> list[Part]:
        parts: list[Part] = []
        # re.split with a group returns text, name, text, name, ..., text.
        for i, piece in enumerate(PLACEHOLDER.split(self.sections[section])):
            if i % 2 == 0:
                parts.append(Part(piece, is_data=False))
            elif piece in data:
                label = piece.replace("_", " ").upper()
                parts.append(Part(f"{mark} {label}\n", is_data=False))
                parts.append(Part(data[piece], is_data=True))
                parts.append(Part(f"\n{mark} END {label}", is_data=False))
            else:
                parts.append(Part(words[piece], is_data=False))
        return [*parts, Part("\n\n", is_data=False)]


def read_template(path: str | None, *, builtin: str, layout: Mapping[str, Slots], option: str) -> tuple[Template, str]:
    """Returns the prompt in use and the sha256 of its file.

    Args:
        path: The user's file; None for the built-in one.
        builtin: File name of the built-in prompt in m3i/llm/prompts.
        layout: The sections of the prompt.
        option: Name of the option that holds `path`, for messages.

    Raises:
        InputError: The file cannot be read.
        ConfigError: The file lacks a section or a placeholder, or has an unknown one.
    """
    file = Path(path).expanduser() if path is not None else Path(__file__).parent / "prompts" / builtin
    try:
        content = file.read_bytes()
        text = content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option} = {path!r}: cannot be read as UTF-8 text: {error}") from error
    template = Template(str(path) if path is not None else builtin, text, layout)
    return template, hashlib.sha256(content).hexdigest()
