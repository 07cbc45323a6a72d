"""What every dialect boils down to: a question with a schema, an answer, and tokens."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request, in no provider's words."""

    model: str
    system: str
    turns: tuple[tuple[str, str], ...]
    """(role, text)"""
    schema: dict[str, Any] | None
    max_tokens: int
    marks: tuple[int, ...] = ()
    """Characters of the prompt up to the end of each block that asks to be cached (Anthropic)."""
    thinks: bool = False

    @property
    def prompt(self) -> str:
        """The whole text, in the order in which a provider's cache sees it."""
        return self.system + "".join(text for _, text in self.turns)

    @property
    def user_text(self) -> str:
        """The first user turn: the item that is asked about."""
        return next((text for role, text in self.turns if role == "user"), "")

    @property
    def repairing(self) -> bool:
        """A reply was already given and complained about."""
        return any(role != "user" for role, _ in self.turns)


@dataclass(frozen=True, kw_only=True)
class Said:
    """One answer, in no provider's words."""

    text: str
    stop: str = "end"
    """`end`, `max_tokens` or `refusal`."""
    thinking_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Tokens; the three parts of the input add up to the prompt."""

    fresh: int
    read: int
    written: int
    output: int


def tokens(text: str) -> int:
    """About how many tokens: three characters each."""
    return (len(text) + 2) // 3


def cut(said: Said, max_tokens: int) -> Said:
    """The answer within `max_tokens`."""
    room = max_tokens - said.thinking_tokens
    if tokens(said.text) <= room:
        return said
    return Said(
        text=said.text[: max(0, 3 * room)], stop="max_tokens", thinking_tokens=min(said.thinking_tokens, max_tokens)
    )


def shared_length(a: str, b: str) -> int:
    """Characters of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class PromptCache:
    """Prefixes of earlier prompts. Filled when an answer is complete, so only a later request can read them."""

    def __init__(self, minimum_tokens: int) -> None:
        self.minimum_tokens = minimum_tokens
        """Shorter prefixes are not cached."""
        self._marked: dict[str, set[str]] = {}
        self._prompts: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def count_marked(self, asked: Asked, scope: str, said: Said) -> Counted:
        """Anthropic's: what a block marks is written once, and read when a later prompt begins with the same text."""
        total, prefixes = tokens(asked.prompt), [asked.prompt[:mark] for mark in asked.marks]
        prefixes = [p for p in prefixes if tokens(p) >= self.minimum_tokens]
        with self._lock:
            known = self._marked.setdefault(scope, set())
            read = max((tokens(p) for p in prefixes if p in known), default=0)
            written = max([tokens(p) for p in prefixes], default=0) - read
            known.update(prefixes)
        output = tokens(said.text) + said.thinking_tokens
        return Counted(fresh=total - read - written, read=read, written=written, output=output)

    def count_implicit(self, asked: Asked, scope: str, said: Said) -> Counted:
        """Gemini's and OpenAI's: the longest beginning that an earlier prompt shares."""
        with self._lock:
            earlier = self._prompts.setdefault(scope, [])
            shared = max((shared_length(asked.prompt, p) for p in earlier), default=0)
            earlier.append(asked.prompt)
            del earlier[:-64]
        read = min(shared // 3, tokens(asked.prompt) - 1)
        read = read if read >= self.minimum_tokens else 0
        output = tokens(said.text) + said.thinking_tokens
        return Counted(fresh=tokens(asked.prompt) - read, read=read, written=0, output=output)
