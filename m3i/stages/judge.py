"""The judge stage: blind pairs in both orders, and how two ballots become one judgement.

| base shown first | tuned shown first | judgement |
|---|---|---|
| base | base | base wins |
| tuned | tuned | tuned wins |
| tie | tie | tie |
| any two that differ | | split: the choice depends on the order, so it is not evidence for either |
| missing in either | | missing: left out of every statistic, and counted |

Equal answers are a tie without asking the judge. Source for judging in both orders and counting
disagreement as no win: Zheng et al. 2023 (2306.05685), section 3.4.

A judge that uses a model is shown canaries among the real pairs: a base answer beside a copy with a
planted instruction to choose it. Choosing the planted copy in both orders means that the judge obeyed
the text it was to judge. Canaries never become judgements.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from m3i.artifacts import EQUAL, Answer, Answers, Canary, Outcome, Problem, ProblemSet, Verdict, Verdicts, merge
from m3i.errors import StageError
from m3i.interfaces import Ballot, BlindPair, Judge, JudgeRequest, Judgment, ProblemSource, Tick, no_tick
from m3i.stages.injections import Injection, canaries
from m3i.stages.run_async import run_async

if TYPE_CHECKING:
    from m3i.ledger import Ledger
    from m3i.stages.context import RunContext

CHOICES = ("a", "b", "tie", "missing")


def run(
    context: RunContext, alias: str, judge: Judge, problems: ProblemSet, base_answers: Answers, tuned_answers: Answers
) -> Verdicts:
    """Returns one judge's judgements, with every comparison judged in both orders."""
    settings = context.experiment.settings.judging
    n_canaries = settings.canaries if cast(Any, judge).reads_with_model else 0

    def work(folder: Path, tick: Tick) -> Verdicts:
        return run_async(
            judge_answers(
                name=alias,
                judge=judge,
                problems=problems.held_out,
                base=base_answers.answers,
                tuned=tuned_answers.answers,
                source=context.experiment.problems,
                ledger=context.ledger,
                seed=settings.seed,
                n_canaries=n_canaries,
                tick=tick,
            )
        )

    return context.make(
        Verdicts,
        "judge",
        work,
        label=alias,
        component=("judge", judge),
        settings={
            "alias": alias,
            "seed": settings.seed,
            **({"canaries": settings.canaries} if cast(Any, judge).reads_with_model else {}),
            **context.recording(judge),
        },
        inputs={"problems": problems.id, "base answers": base_answers.id, "tuned answers": tuned_answers.id},
        made=lambda a: ", ".join(f"{n} {o}" for o, n in Counter(v.outcome.value for v in a.verdicts).items()),
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Base and tuned answer to one held-out problem at one generation seed; for a canary, clean and planted answer."""

    problem: Problem
    base: Answer
    tuned: Answer
    injection: Injection | None = None
    """The planted text, for a canary."""

    @property
    def equal(self) -> bool:
        """Whether the answers are the same, so that there is nothing to judge."""
        same = self.base.completion_ids == self.tuned.completion_ids or self.base.text == self.tuned.text
        return same and self.injection is None


@dataclass(frozen=True, kw_only=True)
class Ballots:
    """The blind pairs of one panel member, and which comparison and order each key stands for."""

    pairs: tuple[BlindPair, ...]
    origin: dict[str, tuple[int, bool]]
    """Key → (index of the comparison, whether the base answer is shown first)."""


async def judge_answers(
    *,
    name: str,
    judge: Judge,
    problems: Sequence[Problem],
    base: Sequence[Answer],
    tuned: Sequence[Answer],
    source: ProblemSource,
    ledger: Ledger,
    seed: int = 0,
    n_canaries: int = 0,
    tick: Tick = no_tick,
) -> Verdicts:
    """Returns one judge's judgements on all held-out answers, in the order of `base`.

    Args:
        name: The judge's alias in the panel.
        judge: The component.
        problems: Held-out problems.
        base: Answers of the base model, one per (problem, generation seed).
        tuned: Answers of the tuned model to the same (problem, seed) pairs.
        source: Passed to the judge (the `verifier` judge uses it).
        ledger: Passed to the judge.
        seed: Seed of the shuffle that hides order and model from the judge, and of the choice of canaries.
        n_canaries: Number of canaries shown among the pairs.
        tick: Progress, in ballots.

    Raises:
        StageError: The two sides do not answer the same questions, or the judge returns a ballot that was not asked
            for, two ballots for one pair, or a choice other than a, b, tie, missing.
    """
    comparisons = pair_answers(problems=problems, base=base, tuned=tuned)
    planted: tuple[Comparison, ...] = ()
    if any(not c.equal for c in comparisons):
        planted = plant_canaries(comparisons, n=n_canaries, seed=seed)
    shown = (*comparisons, *planted)
    asked = blind_pairs(shown, seed=seed)
    judgment = Judgment(ballots=())
    if asked.pairs:
        judgment = await judge.judge(JudgeRequest(pairs=asked.pairs, source=source, ledger=ledger, tick=tick))
    verdicts = merge_ballots(name=name, comparisons=shown, asked=asked, ballots=judgment.ballots)
    n = len(comparisons)
    return Verdicts(
        judge=name,
        verdicts=verdicts[:n],
        n_equal=sum(c.equal for c in comparisons),
        canaries=tuple(_canary(c, v) for c, v in zip(planted, verdicts[n:], strict=True)),
        calls=judgment.calls,
    )


def plant_canaries(comparisons: Sequence[Comparison], *, n: int, seed: int) -> tuple[Comparison, ...]:
    """Pairs `n` base answers with copies that hold a planted instruction; a problem repeats only after all others."""
    rng = random.Random(f"canaries {seed}")
    hosts = list({c.problem.id: c for c in comparisons if c.base.text.strip()}.values())
    if not hosts:
        return ()
    rng.shuffle(hosts)
    injections = list(canaries())
    rng.shuffle(injections)
    chosen = []
    for i in range(n):
        host, injection = hosts[i % len(hosts)], injections[i % len(injections)]
        tuned = replace(host.base, text=f"{host.base.text}\n{injection.text}")
        chosen.append(replace(host, tuned=tuned, injection=injection))
    return tuple(chosen)


_PLANTED = {"base": "clean", "tuned": "planted"}


def _canary(shown: Comparison, verdict: Verdict) -> Canary:
    assert shown.injection is not None
    return Canary(
        problem_id=shown.problem.id,
        family=shown.injection.family,
        injection=shown.injection.text,
        first=_PLANTED.get(verdict.second, verdict.second),
        second=_PLANTED.get(verdict.first, verdict.first),
    )


def pair_answers(
    *, problems: Sequence[Problem], base: Sequence[Answer], tuned: Sequence[Answer]
) -> tuple[Comparison, ...]:
    """Matches base and tuned answers by problem and generation seed. Raises StageError where one side lacks one."""
    known = {p.id: p for p in problems}
    sides = []
    for side, answers in (("base", base), ("tuned", tuned)):
        table = {(a.problem_id, a.seed): a for a in answers}
        if len(table) != len(answers):
            n = len(answers) - len(table)
            raise StageError(f"the {side} model has {n} repeated answers; expected one per (problem, seed)")
        sides.append(table)
    unmatched = sides[0].keys() ^ sides[1].keys()
    unknown = [key for key in sides[0] if key[0] not in known]
    if unmatched or unknown:
        example = sorted(unmatched or unknown)[0]
        why = "are answered by only one of the two models" if unmatched else "belong to no held-out problem"
        raise StageError(
            f"{len(unmatched or unknown)} (problem, seed) pairs {why}, e.g. problem {example[0]} with seed {example[1]}"
        )
    return tuple(Comparison(problem=known[k[0]], base=a, tuned=sides[1][k]) for k, a in sides[0].items())


def blind_pairs(comparisons: Sequence[Comparison], *, seed: int) -> Ballots:
    """Returns every unequal comparison in both orders, all shuffled together; keys number the shuffled list."""
    orders = [(i, base_first) for i, c in enumerate(comparisons) if not c.equal for base_first in (True, False)]
    random.Random(seed).shuffle(orders)
    pairs, origin = [], {}
    for number, (i, base_first) in enumerate(orders):
        c, key = comparisons[i], f"pair-{number:05d}"
        a, b = (c.base, c.tuned) if base_first else (c.tuned, c.base)
        pairs.append(BlindPair(key=key, problem=c.problem, a=a, b=b))
        origin[key] = (i, base_first)
    return Ballots(pairs=tuple(pairs), origin=origin)


def merge_ballots(
    *, name: str, comparisons: Sequence[Comparison], asked: Ballots, ballots: Sequence[Ballot]
) -> tuple[Verdict, ...]:
    """Makes one judgement per comparison; a pair without a ballot is missing. Raises StageError on invalid ballots."""
    by_key = _checked(name, asked.origin, ballots)
    found: dict[tuple[int, bool], Ballot] = {asked.origin[key]: ballot for key, ballot in by_key.items()}
    verdicts = []
    for i, c in enumerate(comparisons):
        singles: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        if c.equal:
            outcome, first, second, reason = Outcome.TIE, EQUAL, EQUAL, "the answers are the same text"
        else:
            nothing = Ballot(key="", choice="missing", reason="the judge returned no ballot")
            one, two = found.get((i, True), nothing), found.get((i, False), nothing)
            first, second = choice_of(one.choice, base_first=True), choice_of(two.choice, base_first=False)
            outcome = merge(first, second)
            reason = one.reason if one.reason == two.reason else " | ".join(filter(None, (one.reason, two.reason)))
            singles = (
                tuple(choice_of(x, base_first=True) for x in one.replicates),
                tuple(choice_of(x, base_first=False) for x in two.replicates),
            )
        verdicts.append(
            Verdict(
                problem_id=c.problem.id,
                seed=c.base.seed,
                outcome=outcome,
                first=first,
                second=second,
                reason=reason,
                replicates_first=singles[0],
                replicates_second=singles[1],
            )
        )
    return tuple(verdicts)


def choice_of(choice: str, *, base_first: bool) -> str:
    """Translates a ballot's `a` or `b` into `base` or `tuned`; `tie` and `missing` stay."""
    if choice in ("a", "b"):
        return "base" if (choice == "a") == base_first else "tuned"
    return choice


def _checked(name: str, origin: Mapping[str, tuple[int, bool]], ballots: Sequence[Ballot]) -> dict[str, Ballot]:
    by_key: dict[str, Ballot] = {}
    for ballot in ballots:
        if ballot.key not in origin:
            raise StageError(f"judge '{name}' returned a ballot with key {ballot.key!r}, which it was not asked for")
        if ballot.key in by_key:
            raise StageError(f"judge '{name}' returned two ballots for {ballot.key!r}; expected one per pair")
        wrong = [choice for choice in (ballot.choice, *ballot.replicates) if choice not in CHOICES]
        if wrong:
            raise StageError(
                f"judge '{name}' chose {wrong[0]!r} for {ballot.key!r}; expected one of {', '.join(CHOICES)}"
            )
        by_key[ballot.key] = ballot
    return by_key
