"""Conversations as a model expects them, in token ids.

A chat template's control tokens are ids, not text. The frames here are tokenised with control tokens, everything else
without: an answer that *says* `<|im_end|>` is read as those characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from m3i.ledger.request import Message
from m3i.llm.prompt_fields import Part, Prompt

if TYPE_CHECKING:
    from m3i.models.llamacpp.session import LlamaSession


class ChatFormat(str, Enum):
    """How a model expects a conversation to be written."""

    chatml = "chatml"
    gemma = "gemma"
    llama3 = "llama3"
    plain = "plain"


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The text around each turn."""

    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]


FRAMES = {
    ChatFormat.chatml: Frames(
        system=("<|im_start|>system\n", "<|im_end|>\n"),
        user=("<|im_start|>user\n", "<|im_end|>\n"),
        assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
    ),
    ChatFormat.gemma: Frames(  # has no system turn
        system=("<start_of_turn>user\n", "\n\n"),
        user=("", "<end_of_turn>\n"),
        assistant=("<start_of_turn>model\n", "<end_of_turn>\n<start_of_turn>user\n"),
    ),
    ChatFormat.llama3: Frames(
        system=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        user=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        assistant=("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    ),
    ChatFormat.plain: Frames(system=("", "\n\n"), user=("", "\n\n"), assistant=("", "\n\n")),
}


def conversation(prompt: Prompt, later: Sequence[Message], chat_format: ChatFormat) -> list[Part]:
    """Returns frames (not data) and their contents (data), up to the beginning of the model's next turn.

    Args:
        prompt: System text and first turn.
        later: The turns after it: the model's reply and the answer to that.
        chat_format: The frames.
    """
    frames = FRAMES[chat_format]
    turns = [(frames.system, prompt.system), (frames.user, prompt.parts)]
    turns += [(frames.user if m.role == "user" else frames.assistant, (Part(m.text, True),)) for m in later]
    parts: list[Part] = []
    for (before, after), inside in turns:
        parts += [Part(before, False), *(Part(part.text, True) for part in inside), Part(after, False)]
    parts.append(Part(frames.assistant[0], False))
    return [part for part in parts if part.text]


def tokenized(session: LlamaSession, parts: Sequence[Part]) -> list[int]:
    """Returns token ids; only frames produce control tokens."""
    ids: list[int] = []
    for part in parts:
        ids += session.tokenize(part.text, add_special=not ids, parse_special=not part.is_data)
    return ids
