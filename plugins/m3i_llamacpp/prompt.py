"""The judge's prompt: a template file, and data that cannot leave its field.

Two guards. The fence around each field is a hash that does not occur in any of the texts, so no
text can close its field. And a chat template's control tokens are ids, not text: template parts
are tokenised with special tokens, data parts without, so an answer that *says* `<|im_end|>`
is read as those characters.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import resources


class ChatFormat(str, Enum):
    """How a model expects a conversation to be written."""

    chatml = "chatml"
    plain = "plain"


FRAMES = {
    ChatFormat.chatml: ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    ChatFormat.plain: ("", "\n"),
}


@dataclass(frozen=True)
class Part:
    """A piece of the prompt."""

    text: str
    is_data: bool
    """From the experiment (problem, answer), not from the template: no special tokens."""


def judge_prompt(problem: str, answer_a: str, answer_b: str, chat_format: ChatFormat) -> list[Part]:
    """The prompt as template and data parts, in order."""
    fields = {"problem": problem, "answer_a": answer_a, "answer_b": answer_b}
    fields["fence"] = fence(*fields.values())
    before, after = FRAMES[chat_format]
    parts = [Part(before, is_data=False)]
    # re.split with a group gives text, name, text, name, ..., text.
    for i, piece in enumerate(re.split(r"\{(problem|answer_a|answer_b|fence)\}", _template())):
        is_field = i % 2 == 1
        parts.append(Part(fields[piece] if is_field else piece, is_data=is_field and piece != "fence"))
    parts.append(Part(after, is_data=False))
    return merged(parts)


def merged(parts: list[Part]) -> list[Part]:
    """Neighbours of one kind joined, empty parts dropped: fewer seams between separately tokenised texts."""
    result: list[Part] = []
    for part in parts:
        if result and result[-1].is_data == part.is_data:
            result[-1] = Part(result[-1].text + part.text, part.is_data)
        elif part.text:
            result.append(part)
    return result


def fence(*texts: str) -> str:
    """A delimiter that occurs in none of the texts, the same for the same texts in the same order.

    Four hex digits keep the prompt short; where the texts hold the first 256 candidates, it grows by a digit.
    """
    joined = "\x00".join(texts)
    candidates = (
        f"=={hashlib.sha256(f'{count}{joined}'.encode('utf-8', 'surrogatepass')).hexdigest()[: 4 + count // 256]}=="
        for count in itertools.count()
    )
    return next(candidate for candidate in candidates if candidate not in joined)


@cache
def _template() -> str:
    return resources.files("m3i_llamacpp").joinpath("prompt.txt").read_text(encoding="utf-8").rstrip("\n")
