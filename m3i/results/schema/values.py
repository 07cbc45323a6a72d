"""The values that result.json and sweep.json are made of, and the small models that both use."""

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
"""A text as it is: half of a surrogate pair (half an emoji from a cut token) is one of a model's, and pydantic's own
strings refuse it."""
Created = Annotated[Text, _time_of(CREATED)]
MadeAt = Annotated[Text, _time_of(MADE_AT)]
LARGEST = 2**63 - 1
"""What a column of integers holds."""
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
    """Part of a file. Fields that are not declared may hold anything: a later version may have written them."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True)


class Estimate(Section):
    """A share, a score or a difference of two, with its confidence interval."""

    value: Bounded | None
    """The estimate; null where there is nothing to estimate from."""
    low: Bounded
    """Lower end of the interval."""
    high: Bounded
    """Upper end of the interval."""
    level: Level
    """Confidence level, 0.95 for a 95 % interval."""
    n: Count
    """Units that the estimate rests on."""
    method: Text
    """Name of the interval."""
    degenerate: bool
    """Whether all units have one value, so that the interval's width says nothing about the uncertainty."""


class SignTest(Section):
    """The exact sign test: wins against losses, with ties left out."""

    wins: Count
    """Problems that the tuned model wins."""
    losses: Count
    """Problems that the base model wins."""
    p: Share
    """Two-sided exact p; 1 where nothing is decided."""
    share: Share | None
    """Wins among decided problems; null where nothing is decided."""
    low: Share
    """Lower end of the Clopper-Pearson interval of `share`; 0 where nothing is decided."""
    high: Share
    """Upper end of the interval; 1 where nothing is decided."""
    level: Level
    """Confidence level of the interval."""


class McNemar(Section):
    """The exact McNemar test of correct answers, over problems."""

    fixed: Count
    """Problems with more correct answers after training than before."""
    broken: Count
    """Problems with fewer correct answers after training than before."""
    p: Share
    """Two-sided exact p; 1 where no problem changed."""


class OutcomeCounts(Section):
    """Comparisons of one judge by their outcome."""

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
    """Two judges on the comparisons that both judged; equal answers, which nobody judges, are left out."""

    judges: Pair
    """Aliases of the two judges."""
    n: Count
    """Comparisons that both judged."""
    agreement: Share | None
    """Share of them with the same outcome, a split counting as a tie; null without a comparison."""
    kappa: Bounded | None
    """Cohen's kappa; null without a comparison, or where a judge always says the same."""


class SharedFamily(Section):
    """A judge or observer whose model family occurs elsewhere in the run."""

    group: Literal["judge", "observer"]
    """What belongs to the family."""
    alias: Text
    """Its alias."""
    family: Text
    """The family that both share."""
    with_group: Literal["observer", "target"]
    """What else belongs to the family."""
    with_alias: Text
    """Its alias; empty for the target."""


class Caveat(Section):
    """One limit of the result, derived from its own numbers."""

    name: Text
    """Name of the rule that speaks."""
    title: Text
    """The limit in a few words."""
    text: Text
    """The limit in full."""
    weight: Literal["major", "minor"]
    """`major` where it limits the headline, `minor` where a careful reader wants to know it."""


class NextStep(Section):
    """What would settle an open question."""

    title: Text
    """The step in a few words."""
    text: Text
    """The step in full."""
    command: Text
    """Command line that takes it; empty where one command does not do it."""
