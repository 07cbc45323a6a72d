"""The core's own options: the schema of the root config. Components define their own (see m3i.component).

Seeds are separate fields: `problems.seed`, `trace.seed`, `selector.seed`, `seed` (training),
`evaluate.seeds` (generation). Changing one reruns only what depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeVar, get_args

from omegaconf import MISSING

from m3i.component import option, require
from m3i.config.arms import DERIVED
from m3i.statistics.randomization import ALTERNATIVES

E = TypeVar("E", bound=Enum)


def _choice(kind: type[E], name: str, value: E | str) -> E:
    """Returns the member that a value names. Raises ConfigError that lists the members."""
    known = [member.value for member in kind]
    require(value in known, name, value, " or ".join(filter(None, (", ".join(known[:-1]), known[-1]))))
    return kind(value)


def _in_unit(name: str, value: float) -> None:
    require(0.0 < value <= 1.0, name, value, "a number in (0, 1]")


@dataclass(kw_only=True)
class TraceSettings:
    """How the target's traces are sampled, or which file the user's own traces are read from."""

    samples: int = 4
    """Completions per train problem."""
    temperature: float = 0.8
    """Softmax temperature; 0 decodes greedily, so all samples of a problem have the same text."""
    top_p: float = 1.0
    """Nucleus sampling: keep the smallest set of tokens with at least this probability. Source: Holtzman 1904.09751."""
    max_new_tokens: int = 96
    """Maximum length of a completion in tokens; a completion that reaches it is `truncated`."""
    batch_size: int = 256
    """Completions generated together; lower it if memory is short."""
    seed: int = 0
    """Seed of the sampling noise."""
    file: str | None = None
    """JSONL file of the user's own traces (`prompt` or `problem_id`, and `completion`), used instead of sampling."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.samples >= 1, "trace.samples", self.samples, "at least 1")
        require(self.temperature >= 0, "trace.temperature", self.temperature, "at least 0")
        _in_unit("trace.top_p", self.top_p)
        require(self.max_new_tokens >= 1, "trace.max_new_tokens", self.max_new_tokens, "at least 1")
        require(self.batch_size >= 1, "trace.batch_size", self.batch_size, "at least 1")


@dataclass(kw_only=True)
class TelemetrySettings:
    """How much is measured in every layer."""

    max_traces: int = 96
    """Maximum number of traces measured, balanced between incorrect and correct ones."""
    batch_size: int = 16
    """Traces per forward pass."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.max_traces >= 2, "telemetry.max_traces", self.max_traces, "at least 2")
        require(self.batch_size >= 1, "telemetry.batch_size", self.batch_size, "at least 1")


@dataclass(kw_only=True)
class AttributionSettings:
    """How layer values are averaged into scores."""

    n_bootstrap: int = 1000
    """Bootstrap replicates for the interval over traces."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.n_bootstrap >= 100, "attribution.n_bootstrap", self.n_bootstrap, "at least 100")


class Corrected(str, Enum):
    """When a failing trace, corrected from its first wrong step on, may be the chosen side of a pair."""

    none = "none"
    """Never; chosen sides are sampled traces."""
    fill = "fill"
    """For problems without a correct trace."""
    only = "only"
    """Always: the two sides of a pair then share everything before the first wrong step."""
    also = "also"
    """In addition to sampled chosen sides, with up to `per_problem` pairs of each kind."""


class Overlong(str, Enum):
    """What happens to a pair longer than `max_length`; no pair is ever truncated."""

    error = "error"
    leave_out = "leave_out"
    """The pair is left out and counted."""


@dataclass(kw_only=True)
class PairSettings:
    """How preference pairs are made from verified traces."""

    per_problem: int = 2
    """Maximum number of pairs per train problem."""
    at_most: int | None = None
    """Maximum number of pairs in total, drawn by `seed` from all possible pairs; null: no maximum."""
    corrected: Corrected = Corrected.fill
    """When the chosen side may be a corrected failing trace: `none` (never), `fill` (for problems without a correct
    sample), `only` (always), or `also` (in addition to sampled chosen sides)."""
    max_length: int = 512
    """Maximum length of a pair in tokens, prompt included; no pair is ever truncated."""
    overlong: Overlong = Overlong.leave_out
    """What happens to a pair over `max_length`: `leave_out` (it is counted) or `error`."""
    truncated: bool = False
    """Use traces cut off by the length limit as rejected sides; they are counted either way and never chosen."""
    seed: int = 0
    """Seed of the choice among possible pairs."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.per_problem >= 1, "pairs.per_problem", self.per_problem, "at least 1")
        require(self.at_most is None or self.at_most >= 1, "pairs.at_most", self.at_most, "at least 1")
        self.corrected = _choice(Corrected, "pairs.corrected", self.corrected)
        self.overlong = _choice(Overlong, "pairs.overlong", self.overlong)
        require(self.max_length >= 8, "pairs.max_length", self.max_length, "at least 8")


@dataclass(kw_only=True)
class ReferenceSettings:
    """How the base model's log-probabilities of the pairs, shared by all arms, are computed."""

    batch_size: int = 16
    """Pairs per forward pass."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.batch_size >= 1, "reference.batch_size", self.batch_size, "at least 1")


@dataclass(kw_only=True)
class EvaluateSettings:
    """How held-out problems are answered under llama.cpp."""

    seeds: list[int] = option(factory=lambda: [0])
    """Generation seeds; every held-out problem is answered once per seed."""
    temperature: float = 0.8
    """Softmax temperature; base model and tuned model share the sampling noise of each problem and seed."""
    top_p: float = 1.0
    """Nucleus sampling, as in `trace.top_p`."""
    max_new_tokens: int = 96
    """Maximum length of an answer in tokens."""
    threads: int = 1
    """Number of llama.cpp threads; on a shared machine two can be slower than one."""
    n_ctx: int = 1024
    """Context length in tokens."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(len(self.seeds) >= 1, "evaluate.seeds", self.seeds, "at least one seed")
        require(len(set(self.seeds)) == len(self.seeds), "evaluate.seeds", self.seeds, "distinct seeds")
        require(self.temperature >= 0, "evaluate.temperature", self.temperature, "at least 0")
        _in_unit("evaluate.top_p", self.top_p)
        require(self.max_new_tokens >= 1, "evaluate.max_new_tokens", self.max_new_tokens, "at least 1")
        require(self.threads >= 1, "evaluate.threads", self.threads, "at least 1")
        require(self.n_ctx >= 16, "evaluate.n_ctx", self.n_ctx, "at least 16")


@dataclass(kw_only=True)
class JudgingSettings:
    """How comparisons are shown to judges."""

    seed: int = 0
    """Seed of the order in which blind pairs are shown, and of the choice of canaries."""
    canaries: int = 8
    """Number of answers with a planted instruction mixed in for judges that read with a model; 0: none."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.canaries >= 0, "judging.canaries", self.canaries, "at least 0")


@dataclass(kw_only=True)
class StatisticsSettings:
    """How uncertainty is estimated and reported."""

    n_bootstrap: int = 2000
    """Bootstrap replicates over problems."""
    seed: int = 0
    """Seed of the bootstrap."""
    confidence: float = 0.95
    """Confidence level of every interval."""
    power: float = 0.8
    """Power at which the minimum detectable effect is stated."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.n_bootstrap >= 100, "statistics.n_bootstrap", self.n_bootstrap, "at least 100")
        require(0.5 < self.confidence < 1, "statistics.confidence", self.confidence, "a number in (0.5, 1)")
        require(0.5 <= self.power < 1, "statistics.power", self.power, "a number in [0.5, 1)")


@dataclass(kw_only=True)
class StoreSettings:
    """Where artifacts are kept."""

    root: str | None = option(None, result_free=True)
    """Folder of the artifact store; the user's cache folder if unset. Runs and processes may share it."""


class LedgerMode(str, Enum):
    """How the ledger answers a call."""

    live = "live"
    record = "record"
    replay = "replay"
    estimate = "estimate"


@dataclass(kw_only=True)
class LedgerSettings:
    """The record of every remote call: what was asked, answered and paid. These options do not change any result."""

    mode: LedgerMode = option(LedgerMode.live, result_free=True)
    """`live` reuses a recorded answer or calls; `record` always calls; `replay` never calls, and a missing answer is an
    error; `estimate` prints what the run would ask and cost, then stops."""
    path: str | None = option(None, result_free=True)
    """SQLite file; `ledger.sqlite` in the store if unset. Parallel runs may share it."""
    recording: str = option("", result_free=True)
    """Name of a recording. `record` starts or continues it (if empty: a new one for every run); `live` and `replay`
    look for answers there first (if empty: in the newest one)."""
    account: str = option("default", result_free=True)
    """Account that `budget_usd` applies to; it covers all calls ever paid for under this name in this ledger."""
    budget_usd: float | None = option(20.0, result_free=True)
    """US dollars that the account may spend in total. Each call's worst case is checked beforehand; null: no limit."""
    prices: dict[str, Any] = option(factory=dict, result_free=True)
    """Model id → {input, output, cache_read, cache_write} in USD per million tokens; overrides litellm's table."""
    concurrency: int = option(8, result_free=True)
    """Maximum number of calls in flight per model; lowered when the provider answers 429 or 529."""
    timeout_s: float = option(180.0, result_free=True)
    """Time limit of a single attempt in seconds, from sending to the last byte."""
    deadline_s: float = option(900.0, result_free=True)
    """Time limit of a call in seconds, waiting and retries included; when it is exceeded the run stops, and continues
    when started again."""
    batch_poll_s: float = option(30.0, result_free=True)
    """Seconds between checks of a batch."""

    def __post_init__(self) -> None:
        """Checks the values."""
        require(bool(self.account), "ledger.account", self.account, "a name")
        require(self.budget_usd is None or self.budget_usd >= 0, "ledger.budget_usd", self.budget_usd, "0 or more")
        require(self.concurrency >= 1, "ledger.concurrency", self.concurrency, "at least 1")
        require(self.timeout_s > 0, "ledger.timeout_s", self.timeout_s, "more than 0")
        require(self.deadline_s > 0, "ledger.deadline_s", self.deadline_s, "more than 0")
        require(self.batch_poll_s > 0, "ledger.batch_poll_s", self.batch_poll_s, "more than 0")


EndpointKind = Literal["score", "accuracy"]
"""What the arms of a sweep are compared by."""
MOST_ARMS = 10_000
"""Maximum number of random arms in a sweep, since each one is trained."""


def require_training_seed(name: str, seed: int) -> None:
    """Raises ConfigError for a seed outside the range of the random number generators."""
    require(0 <= seed < 2**32, name, seed, "training seeds from 0 to 4294967295")


@dataclass(kw_only=True)
class SweepSettings:
    """What `+sweep=control` runs, and how the outcome is tested. These options do not change the result of any arm.

    Endpoint, margin and alpha are written to plan.json before the first result; the report names any later change as a
    deviation.
    """

    n_random: int = 19
    """Number of random control arms; p ≤ 0.05 takes at least 19. If fewer layer sets exist, all of them are run; with 0
    nothing is tested."""
    n_excluding: int = 0
    """Number of arms with random sets that contain no attributed layer, shown as a contrast without a p value."""
    others: list[str] = option(factory=lambda: [kind.value for kind in DERIVED])
    """Further arms: `all` candidates, `shuffled` preferences, `sham` (a zero update; run at one training seed)."""
    seeds: list[int] = option(factory=lambda: [0, 1, 2])
    """Training seeds of every arm; with fewer than three the effect's interval falls short of its nominal coverage."""
    primary: str = "score"
    """Primary endpoint, tested on its own at `alpha`: `score` (a judge's mean score, a tie counting ½) or `accuracy`
    (share of answers that the verifier calls correct)."""
    judge: str = ""
    """Alias of the judge whose score is the endpoint; if empty, the first of the panel."""
    alternative: str = "greater"
    """Hypothesis about the attributed arm relative to the random arms: `greater`, `less` or `two-sided`."""
    alpha: float = 0.05
    """Level of the primary test, and family-wise level of the secondary tests."""
    margin: float = 0.05
    """Equivalence margin on the mean score: differences within ± `margin` count as none."""
    effect: float = 0.6
    """Share of wins among decided problems that a sweep should be able to detect; the required n is reported."""

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, n in (("sweep.n_random", self.n_random), ("sweep.n_excluding", self.n_excluding)):
            require(0 <= n <= MOST_ARMS, name, n, f"at least 0, and at most {MOST_ARMS}")
        known = [kind.value for kind in DERIVED]
        require(
            set(self.others) <= set(known) and len(set(self.others)) == len(self.others),
            "sweep.others",
            list(self.others),
            f"distinct ones of {', '.join(known)}",
        )
        require(
            len(self.seeds) >= 1 and len(set(self.seeds)) == len(self.seeds),
            "sweep.seeds",
            list(self.seeds),
            "distinct seeds, at least one",
        )
        for seed in self.seeds:
            require_training_seed("sweep.seeds", seed)
        require(self.primary in get_args(EndpointKind), "sweep.primary", self.primary, "score or accuracy")
        require(self.alternative in ALTERNATIVES, "sweep.alternative", self.alternative, "greater, less or two-sided")
        require(0 < self.alpha < 0.5, "sweep.alpha", self.alpha, "a number in (0, 0.5)")
        require(0 < self.margin < 0.5, "sweep.margin", self.margin, "a number in (0, 0.5)")
        require(0.5 < self.effect < 1, "sweep.effect", self.effect, "a number in (0.5, 1)")


@dataclass(kw_only=True)
class Settings:
    """The root config. The first nine fields are components, chosen by name; only the tracker is optional."""

    target: Any = MISSING
    problems: Any = MISSING
    observer: Any = MISSING
    attributor: Any = MISSING
    selector: Any = MISSING
    trainer: Any = MISSING
    exporter: Any = MISSING
    judge: Any = MISSING
    tracker: Any = None
    trace: TraceSettings = field(default_factory=TraceSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    attribution: AttributionSettings = field(default_factory=AttributionSettings)
    pairs: PairSettings = field(default_factory=PairSettings)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    judging: JudgingSettings = field(default_factory=JudgingSettings)
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)
    arm: str = "attributed"
    """The arm to train: `attributed` (the selector's layers), or a control derived from them: `random-N`,
    `excluding-N`, `all`, `shuffled`, `sham` (docs/sweeps.md)."""
    draw_seed: int = 0
    """Seed of the random order in which `random-N` and `excluding-N` number the layer sets."""
    seed: int = 0
    """Training seed: adapter initialisation and data order."""

    def __post_init__(self) -> None:
        """Checks the top-level values."""
        require_training_seed("seed", self.seed)
        require(0 <= self.draw_seed < 2**32, "draw_seed", self.draw_seed, "at least 0, below 4294967296")
