"""Estimates the cost of an experiment's remote calls in advance: `m3i cost ...` and `ledger.mode=estimate`.

    problems -> stored traces if the store has them, else stand-ins -> the exact requests a run would send
             -> one estimate per request (m3i.ledger.prices.estimate, also used by the budget) -> one line per component

No model is loaded and nothing is called. The stand-in for a trace or an answer has the maximum
length, so estimates from stand-ins are on the high side; the remarks say which were used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from m3i import stages
from m3i.artifacts import Answer, Artifact, Problem, ProblemSet, Telemetry, Trace, Traces
from m3i.config.experiment import Experiment
from m3i.config.registry import installed
from m3i.engine.folders import ledger_path, store_root
from m3i.engine.preflight import check_trace_file
from m3i.errors import InputError
from m3i.interfaces import BlindPair
from m3i.ledger import Ledger
from m3i.ledger.prices import CallEstimate, Prefix, Price, estimate, price_of, price_source
from m3i.ledger.request import Block, Message, ModelRequest
from m3i.llm.judge import LLMJudge
from m3i.llm.observer import LLMObserver
from m3i.llm.panel import MAX_ECHO_CHARS, CallMode
from m3i.llm.remote import RemoteModel
from m3i.models.session import TargetSession
from m3i.progress.display import Display
from m3i.stages.context import RunContext
from m3i.store.store import Recipe, StageRecord, Store

REPLY_TOKENS = {"observer": 300, "judge": 120}
"""Expected length of a reply, without thinking (see `TextModel.thinking_tokens`)."""
LONGEST_CHARACTER = "\U00010000"
"""A character with the maximum number of UTF-8 bytes, four."""
REPAIR_CHARS = 2000
"""Upper bound on the length of a message about what was wrong with a reply."""
CHARACTERS_A_TOKEN = 4
"""Characters per token in the filler that stands in for a completion."""

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True, kw_only=True)
class CostLine:
    """The calls of one component. Only the upper bound includes repair turns."""

    place: str
    """Group and alias, e.g. `observer.claude`."""
    provider: str
    model: str
    n_calls: int
    """Upper bound: equal answers are not judged. Identical requests count as one call."""
    n_known: int
    """How many of these calls the ledger has answers to."""
    input_tokens: int
    """Expected number."""
    output_tokens: int
    usd: float | None
    """Expected cost; None if no price is known. Answers in the ledger cost nothing."""
    usd_at_most: float | None
    """Upper bound: every reply has the maximum length and is requested twice."""
    basis: str
    """What the requests were built from."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The calls that an experiment would make, and their cost."""

    lines: tuple[CostLine, ...]
    price_source: str
    budget_usd: float | None

    @property
    def usd(self) -> float | None:
        """Expected cost of all components; None if one has no known price."""
        return _sum([line.usd for line in self.lines])

    @property
    def usd_at_most(self) -> float | None:
        """Upper bound on the cost of all components; None if one has no known price."""
        return _sum([line.usd_at_most for line in self.lines])


class NotStored(Exception):
    """The artifact is not stored and would have to be made."""


class StoredOnly(Store):
    """A store that returns stored artifacts and never makes any."""

    def get_or_make(self, cls: type[A], recipe: Recipe, *unused: Any, **also_unused: Any) -> tuple[A, StageRecord]:
        """Returns the stored artifact. Raises NotStored if there is none."""
        found, _ = self._load(cls, recipe)
        if found is None:
            raise NotStored(recipe.stage)
        return found, self._record(recipe, 0.0, hit=True, why="")


def estimate_cost(experiment: Experiment) -> Estimate:
    """Returns one line per component that calls a provider. Loads no model, needs no API key, calls nothing."""
    remote = {place: c for place, c in experiment.components.items() if isinstance(c, RemoteModel)}
    settings = experiment.settings.ledger
    if not remote:
        return Estimate(lines=(), price_source=price_source(), budget_usd=settings.budget_usd)
    check_trace_file(experiment)
    lines = []
    ledger = Ledger(settings, default_path=ledger_path(experiment))
    try:
        problems, traces, telemetry = _inputs(experiment, ledger)
        for place, component in remote.items():
            if isinstance(component, LLMObserver):
                requests = list(_audits(component, experiment, problems, traces, telemetry))
                basis = "stored traces" if traces else "stand-ins of maximum length, since no traces are stored"
            elif isinstance(component, LLMJudge):
                requests = list(_judgments(component, experiment, problems))
                basis = "stand-ins of maximum length for both answers"
            else:
                continue
            lines.append(_line(place, component, requests, basis, experiment, ledger))
    finally:
        ledger.close()
    return Estimate(lines=tuple(lines), price_source=price_source(), budget_usd=settings.budget_usd)


def times_judged(found: Estimate, n_jobs: int) -> Estimate:
    """Returns the estimate of a sweep: observers run once, judges once for each of `n_jobs` jobs with new answers."""
    lines = []
    for line in found.lines:
        if not line.place.startswith("judge."):
            lines.append(line)
            continue
        lines.append(
            replace(
                line,
                n_calls=line.n_calls * n_jobs,
                n_known=0,  # only the first job's answers can be in the ledger
                input_tokens=line.input_tokens * n_jobs,
                output_tokens=line.output_tokens * n_jobs,
                usd=None if line.usd is None else line.usd * n_jobs,
                usd_at_most=None if line.usd_at_most is None else line.usd_at_most * n_jobs,
                basis=f"{line.basis}, for each of {n_jobs} jobs of the sweep",
            )
        )
    return replace(found, lines=tuple(lines))


def _inputs(experiment: Experiment, ledger: Ledger) -> tuple[ProblemSet, Traces | None, Telemetry | None]:
    """Returns the problems, made if the store lacks them, and the stored traces with their telemetry, if any."""
    root = store_root(experiment)
    problems: ProblemSet | None = None
    traces: Traces | None = None
    if root.is_dir():
        with contextlib.suppress(NotStored, InputError):  # InputError: the target's weights are not on this machine
            session = TargetSession(experiment.target)
            context = RunContext(experiment, installed(), StoredOnly(root), Display(quiet=True), session, ledger)
            problems = stages.problems.run(context)
            traces = stages.trace.run(context, problems)
            return problems, traces, stages.telemetry.run(context, traces)
    if problems is None:
        from m3i.stages.problems import make_problem_set

        problems = make_problem_set(experiment.problems)
    return problems, traces, None


def _audits(
    observer: LLMObserver,
    experiment: Experiment,
    problems: ProblemSet,
    traces: Traces | None,
    telemetry: Telemetry | None,
) -> Iterator[ModelRequest]:
    by_id = {p.id: p for p in problems.train}
    if traces is not None:
        items = [(by_id[t.problem_id], t) for t in traces.traces]
    else:
        options = experiment.settings.trace
        samples = range(options.samples)
        if options.file is not None:  # its lines are unknown until the target has tokenised them
            with Path(options.file).open("rb") as file:
                samples = range(max(1, round(sum(1 for line in file if line.strip()) / max(1, len(problems.train)))))
        items = [(p, _trace(p, sample, options.max_new_tokens)) for p in problems.train for sample in samples]
    for problem, trace in items:
        yield observer.request_for(problem, trace, telemetry)


def _judgments(judge: LLMJudge, experiment: Experiment, problems: ProblemSet) -> Iterator[ModelRequest]:
    options = experiment.settings
    shown: list[tuple[Problem, int]] = [(p, seed) for p in problems.held_out for seed in options.evaluate.seeds]
    shown += [(problems.held_out[i % len(problems.held_out)], -1 - i) for i in range(options.judging.canaries)]
    for problem, seed in shown:
        sides = [_answer(problem, f"{seed} {side}", options.evaluate.max_new_tokens) for side in "ab"]
        for a, b in (sides, sides[::-1]):
            for replicate in range(judge.replicates):
                yield judge.request_for(BlindPair(key="", problem=problem, a=a, b=b), replicate)


def _line(
    place: str,
    component: RemoteModel,
    requests: Sequence[ModelRequest],
    basis: str,
    experiment: Experiment,
    ledger: Ledger,
) -> CostLine:
    price = price_of(component.provider_name, component.model, experiment.settings.ledger.prices)
    reply = REPLY_TOKENS[component.group] + component.thinking_tokens()
    distinct = {request.key: request for request in requests}
    known = ledger.known(distinct)
    asked = [request for key, request in distinct.items() if key not in known]
    seen: set[tuple[str, ...]] = set()
    calls: list[CallEstimate] = []
    batch = component.mode is CallMode.batch
    for request in asked:
        prefix = _prefix(request)
        use = Prefix.unused if not prefix else Prefix.read if prefix in seen else Prefix.written
        seen.add(prefix)
        calls.append(estimate(request, price, expected_output_tokens=reply, batch=batch, prefix=use))
    return CostLine(
        place=place,
        provider=component.provider_name,
        model=component.model,
        n_calls=len(distinct),
        n_known=len(known),
        input_tokens=sum(c.input_tokens_expected for c in calls),
        output_tokens=sum(c.output_tokens_expected for c in calls),
        usd=_sum([c.usd_expected for c in calls]),
        usd_at_most=_sum([c.usd_at_most for c in calls] + [repair_usd_at_most(r, price, batch=batch) for r in asked]),
        basis=basis,
    )


def repair_usd_at_most(request: ModelRequest, price: Price | None, *, batch: bool) -> float | None:
    """Returns a bound on the repair turn's cost: the request, the longest reply quoted in it, and what was wrong."""
    reply = Message(role="assistant", blocks=(Block(text=LONGEST_CHARACTER * MAX_ECHO_CHARS),))
    wrong = Message(role="user", blocks=(Block(text=LONGEST_CHARACTER * REPAIR_CHARS),))
    again = replace(request, messages=(*request.messages, reply, wrong))
    return estimate(again, price, batch=batch).usd_at_most


def _prefix(request: ModelRequest) -> tuple[str, ...]:
    """Returns the part of the prompt that is marked for the provider's cache."""
    blocks = [*request.system, *(b for m in request.messages for b in m.blocks)]
    marked = max((i for i, block in enumerate(blocks) if block.cache), default=-1)
    return tuple(block.text for block in blocks[: marked + 1])


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _filler(problem: Problem, max_new_tokens: int, what: str) -> str:
    """Returns a completion of maximum length, from the source's solution if it has one; `what` makes it distinct."""
    line = (problem.solution or "so many words stand for one step of it").rstrip("\n") + "\n"
    length = CHARACTERS_A_TOKEN * max_new_tokens
    return f"({what})\n{line * (1 + length // len(line))}"[:length]


def _trace(problem: Problem, sample: int, max_new_tokens: int) -> Trace:
    text = _filler(problem, max_new_tokens, f"sample {sample}")
    return Trace(
        id=f"{problem.id}-{sample}",
        problem_id=problem.id,
        sample=sample,
        prompt_ids=(),
        completion_ids=(),
        text=text,
        offsets=(),
        logprobs=(),
        correct=False,
        answer=None,
        truncated=False,
    )


def _answer(problem: Problem, what: str, max_new_tokens: int) -> Answer:
    return Answer(
        problem_id=problem.id,
        seed=0,
        completion_ids=(),
        text=_filler(problem, max_new_tokens, what),
        correct=False,
        answer=None,
        truncated=False,
    )


def cost_table(found: Estimate) -> Any:
    """Returns the estimate as a rich table."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("component", "model"):
        table.add_column(column, no_wrap=True)
    for column in ("calls", "tokens in", "tokens out", "expected", "at most"):
        table.add_column(column, justify="right", no_wrap=True, min_width=len(column))
    for line in found.lines:
        calls = f"{line.n_calls - line.n_known:,}" + (f" of {line.n_calls:,}" if line.n_known else "")
        tokens = (f"{line.input_tokens:,}", f"{line.output_tokens:,}")
        table.add_row(line.place, line.model, calls, *tokens, usd(line.usd), usd(line.usd_at_most))
    return table


def remarks(found: Estimate) -> list[str]:
    """Returns what the figures are based on, one line per fact."""
    bases = {line.basis: [other.place for other in found.lines if other.basis == line.basis] for line in found.lines}
    lines = [f"{', '.join(places)}: estimated from {basis}." for basis, places in bases.items()]
    lines += [
        f"{line.place}: {line.n_known:,} of {line.n_calls:,} answers are in the ledger and cost nothing."
        for line in found.lines
        if line.n_known
    ]
    lines.append(f"Prices: {found.price_source}; ledger.prices overrides them.")
    budget = "no limit" if found.budget_usd is None else f"${found.budget_usd:,.2f}"
    lines.append(f"Budget: {budget} (ledger.budget_usd), for everything the account ever spends.")
    if found.budget_usd is not None and found.usd is not None and found.usd > found.budget_usd:
        lines.append("The expected cost exceeds the budget: the run would stop there; a larger budget continues it.")
    return lines


def usd(value: float | None) -> str:
    """Returns an amount in dollars as text; a missing price is not shown as 0."""
    return "no price known" if value is None else f"${value:,.2f}"


def print_cost(experiment: Experiment, n_jobs: int = 1) -> None:
    """Prints the table and the total of an estimate, for a sweep that judges `n_jobs` times."""
    from rich.console import Console

    found = estimate_cost(experiment)
    if n_jobs > 1:
        found = times_judged(found, n_jobs)
    if not found.lines:
        print("This experiment calls no provider: it costs nothing.")
        return
    Console(highlight=False, width=max(100, Console().width)).print(cost_table(found))
    if found.usd is None:
        print("\nNo total, since a model has no known price: set it in ledger.prices.")
    else:
        print(
            f"\nTotal: {usd(found.usd)} expected, {usd(found.usd_at_most)} at most (if every reply has the maximum "
            f"length and is requested twice)."
        )
    for line in remarks(found):
        print(line)
