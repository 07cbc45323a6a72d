"""The fields of result.json that compare, export and trackers read: their types and ranges, as pydantic models.

What each means is in `m3i.results`. Fields that are not named here may hold anything.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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


Text = Annotated[Any, AfterValidator(_is_text)]
"""A text as it is: half of a surrogate pair (half an emoji from a cut token) is one of a model's, and pydantic's own
strings refuse it."""
LARGEST = 2**63 - 1
"""What a column of integers holds."""
Integer = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Money = Annotated[float, Field(ge=0, le=1e12)]
Bounded = Annotated[float, Field(ge=-1, le=1)]
Layers = list[Count]
Choice = Literal["base", "tuned", "tie", "missing", "equal"]


class Section(BaseModel):
    """Part of a result. Fields that are not named may hold anything."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Statistics(Section):
    """Section `statistics`."""

    n_bootstrap: Annotated[int, Field(ge=1, le=10**7)]
    seed: Count
    confidence: Annotated[float, Field(gt=0, lt=1)]
    power: Annotated[float, Field(gt=0, lt=1)]


class OwnArm(Section):
    """Section `arm`."""

    name: Text
    kind: Text
    draw: Count | None
    draw_seed: Count | None = None
    seed: Integer
    attributed: Layers
    candidates: Layers
    n_sets: Annotated[int, Field(ge=-1)]


class Interval(Section):
    """An estimate, as far as tables and trackers read it."""

    value: Bounded | None
    low: Bounded | None
    high: Bounded | None


class SideAccuracy(Interval):
    """`accuracy.base` and `accuracy.tuned`."""

    right: Count
    answers: Count


class McNemar(Section):
    """`accuracy.mcnemar`."""

    p: Share | None


class Accuracy(Section):
    """Section `accuracy`."""

    n: Count
    base: SideAccuracy
    tuned: SideAccuracy
    difference: Interval
    fixed: Count
    broken: Count
    mcnemar: McNemar


class Calls(Section):
    """Calls of models behind an audit or a judge."""

    model: Text
    family: Text
    n_calls: Count
    n_unpriced: Count
    cost_usd: Money | None


class Counts(Section):
    """Outcomes of a judge."""

    tuned: Count
    base: Count
    tie: Count
    split: Count
    missing: Count


class Canaries(Section):
    """Planted instructions shown and obeyed."""

    n: Count
    obeyed: Count


class Consistency(Section):
    """Equal choices among replicates."""

    n_ballots: Count
    value: Share | None


class SignTest(Section):
    """`judges.*.sign_test`."""

    wins: Count
    losses: Count
    undecided: Count
    p: Share | None
    share: Share | None


class Order(Section):
    """`judges.*.order`."""

    flip_rate: Share | None


class JudgeSection(Section):
    """One of `judges`."""

    judge: Text
    n: Count
    n_valid: Count
    n_problems: Count
    counts: Counts
    sign_test: SignTest
    mean_score: Interval
    order: Order
    calls: Calls
    canaries: Canaries
    self_consistency: Consistency | None


class OwnVerdict(Section):
    """One of `problems.rows.*.verdicts`."""

    outcome: Literal["base", "tuned", "tie", "split", "missing"]
    first: Choice
    second: Choice
    reason: Text
    replicates_first: list[Text] = []
    replicates_second: list[Text] = []


class Side(Section):
    """One answer."""

    text: Text
    answer: Text | None
    correct: bool
    n_tokens: Annotated[int, Field(ge=0, le=10**9)]
    truncated: bool


class Row(Section):
    """One of `problems.rows`."""

    problem_id: Text
    seed: Integer
    prompt: Text
    answer: Text
    equal: bool
    base: Side
    tuned: Side
    verdicts: dict[str, OwnVerdict]


class Problems(Section):
    """Section `problems`."""

    rows: list[Row]


class Target(Section):
    """Section `target`."""

    name: Text
    revision: Text
    family: Text


class Parameters(Section):
    """Section `parameters`."""

    trained: Count


class OwnLayers(Section):
    """Section `layers`."""

    n: Annotated[int, Field(ge=1, le=10**5)]
    selected: Layers
    zero_update: bool


class Training(Section):
    """Section `training`."""

    n_pairs: Count
    counts: dict[str, int]
    log: list[dict[str, float | None]]


class Certificate(Section):
    """`certificates.export`."""

    live_share: Share
    passed: bool


class Certificates(Section):
    """Section `certificates`."""

    export: Certificate


class Stage(Section):
    """One of `stages`."""

    stage: Text
    label: Text
    key: Text
    hit: bool
    time_s: Seconds
    made_in_s: Seconds
    made_at: Annotated[Text, _time_of(MADE_AT)] = ""


class LedgerRow(Section):
    """One of `costs.ledger.rows`."""

    made: Count
    reused: Count
    unpriced: Count
    cost_usd: Money | None
    saved_usd: Money | None


class OwnTally(Section):
    """`costs.ledger`."""

    rows: list[LedgerRow]
    uncertain_usd: Money


class Costs(Section):
    """Section `costs`."""

    time_s: Seconds
    made_in_s: Seconds
    observers_calls: Count
    judges_calls: Count
    observers_usd: Money | None
    judges_usd: Money | None
    ledger: OwnTally | None


class Observer(Section):
    """One of `observers`."""

    calls: Calls


class Used(Section):
    """One of `components`."""

    place: Text
    name: Text
    distribution: Text
    version: Text


class Id(Section):
    """One of `ids`."""

    kind: Text
    name: Text
    id: Text


class Words(Section):
    """Section `verdict`."""

    kind: Text
    sentence: Text


class Result(Section):
    """result.json."""

    m3i: Text
    created: Annotated[Text, _time_of(CREATED)]
    command: Text
    overrides: list[Text]
    config: dict[str, Any]
    statistics: Statistics
    arm: OwnArm
    judges: Annotated[dict[str, JudgeSection], Field(min_length=1)]
    accuracy: Accuracy
    problems: Problems
    target: Target
    parameters: Parameters
    layers: OwnLayers
    training: Training
    certificates: Certificates
    stages: list[Stage]
    costs: Costs
    observers: dict[str, Observer]
    families: list[Any]
    components: list[Used]
    versions: dict[str, Text]
    ids: list[Id]
    verdict: Words
