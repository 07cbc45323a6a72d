"""Pairwise judging: the schema of the reply, the prompt, and how several replies become one ballot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from m3i.interfaces import Ballot, BlindPair
from m3i.llm.prompt_fields import Prompt, Slots, Template
from m3i.llm.schema import read_reply, tidy, wire_schema

LAYOUT: Mapping[str, Slots] = {
    "rubric": Slots(),
    "problem": Slots(data=("problem",)),
    "answers": Slots(data=("answer_a", "answer_b")),
    "reply": Slots(),
    "repair": Slots(words=("error",)),
}
"""Sections of the judge's prompt; `repair` is used after an invalid reply."""

MAX_REASON_CHARS = 600
"""Maximum characters of a reason; a longer one is cut."""


class Choice(str, Enum):
    """What a judge may choose."""

    A = "A"
    B = "B"
    tie = "tie"


_Reason = Annotated[str, Field(max_length=10_000, description="Why, in one or two sentences.")]
_Choice = Annotated[Choice, Field(description="The better answer, or tie.")]


class VerdictReply(BaseModel):
    """A judge's reply with the reason first, so that the reason can inform the choice."""

    model_config = ConfigDict(extra="forbid")

    reason: _Reason
    choice: _Choice


class ChoiceFirstReply(BaseModel):
    """The same reply with the choice first, for small models, whose reasons only explain a choice."""

    model_config = ConfigDict(extra="forbid")

    choice: _Choice
    reason: _Reason


def verdict_schema(*, choice_first: bool = False) -> dict[str, Any]:
    """Returns the JSON schema of the reply."""
    return wire_schema(ChoiceFirstReply if choice_first else VerdictReply)


def verdict_prompt(template: Template, pair: BlindPair) -> Prompt:
    """Builds the prompt for one blind pair."""
    return template.prompt(
        problem={"problem": {"problem": pair.problem.prompt}},
        item={"answers": {"answer_a": pair.a.text, "answer_b": pair.b.text}, "reply": {}},
        words={},
    )


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """One valid reply."""

    choice: str
    """`a`, `b` or `tie`."""
    reason: str


def read_verdict(text: str) -> Opinion:
    """Returns the opinion in a reply. Raises ReplyError if the reply is not the JSON asked for."""
    reply = read_reply(text, VerdictReply)
    return Opinion(choice=reply.choice.value.lower(), reason=tidy(reply.reason, MAX_REASON_CHARS))


def ballot_of(key: str, opinions: Sequence[Opinion | str]) -> Ballot:
    """Returns one ballot from all replicates of a pair.

    Args:
        key: The pair's key.
        opinions: One entry per replicate: an opinion, or the reason why there is none.

    Returns:
        With one replicate, its choice. With more, the choice of more than half of the valid ones, else a tie; `missing`
        unless more than half of the replicates are valid. The reason is the first one given for that choice.
    """
    valid = [o for o in opinions if isinstance(o, Opinion)]
    singles = tuple(o.choice if isinstance(o, Opinion) else "missing" for o in opinions) if len(opinions) > 1 else ()
    if 2 * len(valid) <= len(opinions):
        reason = next((o for o in opinions if isinstance(o, str)), "no reply")
        return Ballot(key=key, choice="missing", reason=reason, replicates=singles)
    choice, votes = Counter(o.choice for o in valid).most_common(1)[0]
    if 2 * votes <= len(valid):
        choice = "tie"
    reason = next((o.reason for o in valid if o.choice == choice), "the replicates disagree")
    return Ballot(key=key, choice=choice, reason=reason, replicates=singles)
