"""The values that result.json and sweep.json consist of, and the small models that both use."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

MADE_AT = "%Y-%m-%dT%H:%M:%SZ"
CREATED = "%Y-%m-%d %H:%M:%S%z"


def _time_of(pattern: str) -> AfterValidator:
    def check(text: str) -> str:
        if text:
            datetime.strptime(text, pattern)
        return text

    return AfterValidator(check)


def _is_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("input should be a text")
    return value


Text = Annotated[Any, AfterValidator(_is_text), WithJsonSchema({"type": "string"})]
"""Any text, unchanged. A model's text may hold half of a surrogate pair (half an emoji from a cut token), which
pydantic's own strings refuse."""
Created = Annotated[Text, _time_of(CREATED)]
MadeAt = Annotated[Text, _time_of(MADE_AT)]
LARGEST = 2**63 - 1
"""Largest value that a column of integers can hold."""
FARTHEST = 1e100
"""Far beyond any measured value, and small enough that the arithmetic of a page cannot overflow."""
Integer = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Number = Annotated[float, Field(ge=-FARTHEST, le=FARTHEST)]
Size = Annotated[float, Field(ge=0, le=FARTHEST)]
"""A number that cannot be negative: a norm, a variance, an expected count."""
Share = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(gt=0, lt=1)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Money = Annotated[float, Field(ge=0, le=1e12)]
Bounded = Annotated[float, Field(ge=-1, le=1)]
Layers = list[Count]
Pair = Annotated[list[Text], Field(min_length=2, max_length=2)]
Choice = Literal["base", "tuned", "tie", "missing", "equal"]


class Section(BaseModel):
    """Part of a file. Undeclared fields may hold anything: a later version may have written them."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True)


class Estimate(Section):
    """A share, a score or a difference of two, with its confidence interval."""

    value: Bounded | None
    """The estimate; null if there is nothing to estimate from."""
    low: Bounded
    """Lower end of the interval."""
    high: Bounded
    """Upper end of the interval."""
    level: Level
    """Confidence level, 0.95 for a 95 % interval."""
    n: Count
    """Number of units that the estimate rests on."""
    method: Text
    """Name of the interval."""
    degenerate: bool
    """Whether all units have the same value, so that the interval's width says nothing about the uncertainty."""


class SignTest(Section):
    """The exact sign test: wins against losses, without ties."""

    wins: Count
    """Problems that the tuned model wins."""
    losses: Count
    """Problems that the base model wins."""
    p: Share
    """Two-sided exact p; 1 if nothing is decided."""
    share: Share | None
    """Share of wins among decided problems; null if nothing is decided."""
    low: Share
    """Lower end of the Clopper-Pearson interval of `share`; 0 if nothing is decided."""
    high: Share
    """Upper end of the interval; 1 if nothing is decided."""
    level: Level
    """Confidence level of the interval."""


class McNemar(Section):
    """The exact McNemar test of correct answers, over problems."""

    fixed: Count
    """Problems with more correct answers after training than before."""
    broken: Count
    """Problems with fewer correct answers after training than before."""
    p: Share
    """Two-sided exact p; 1 if no problem changed."""


class OutcomeCounts(Section):
    """Comparisons of one judge by outcome."""

    tuned: Count
    """Comparisons that the tuned model wins in both orders."""
    base: Count
    """Comparisons that the base model wins in both orders."""
    tie: Count
    """Ties."""
    split: Count
    """Comparisons whose two orders disagree."""
    missing: Count
    """Comparisons without a valid answer in one of the orders."""


class JudgePair(Section):
    """Two judges on the comparisons that both judged; identical answers, which no judge sees, are left out."""

    judges: Pair
    """Aliases of the two judges."""
    n: Count
    """Comparisons that both judged."""
    agreement: Share | None
    """Share with the same outcome, a split counting as a tie; null without a comparison."""
    kappa: Bounded | None
    """Cohen's kappa; null without a comparison, or if a judge always gives the same outcome."""


class SharedFamily(Section):
    """A judge or observer that shares its model family with another part of the run."""

    group: Literal["judge", "observer"]
    """Which of the two it is."""
    alias: Text
    """Its alias."""
    family: Text
    """The shared family."""
    with_group: Literal["observer", "target"]
    """What it shares the family with."""
    with_alias: Text
    """Alias of that observer; empty for the target."""


class Caveat(Section):
    """One limit of the result, derived from its own numbers."""

    name: Text
    """Name of the caveat."""
    title: Text
    """The limit in a few words."""
    text: Text
    """The limit in full."""
    weight: Literal["major", "minor"]
    """`major` if it limits the headline, `minor` if only a careful reader needs it."""


class NextStep(Section):
    """What would settle an open question."""

    title: Text
    """The step in a few words."""
    text: Text
    """The step in full."""
    command: Text
    """Command line for it; empty if no single command does it."""
