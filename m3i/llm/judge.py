"""The base class of judges that ask a language model."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from m3i.component import require
from m3i.interfaces import BlindPair, JudgeRequest, Judgment
from m3i.ledger.request import ModelRequest
from m3i.llm import verdict
from m3i.llm.observer import say_repair
from m3i.llm.panel import Ask, together
from m3i.llm.prompt_fields import Slots, Template
from m3i.llm.text_model import TextModel
from m3i.llm.verdict import Opinion, ballot_of, read_verdict, verdict_prompt, verdict_schema


@dataclass(kw_only=True)
class LLMJudge(TextModel, ABC):
    """Shows a model two answers to one problem and records its choice; see docs/audit.md.

    A subclass defines how text is obtained (`answers`); remote ones mix in RemoteModel.
    """

    group: ClassVar[str] = "judge"
    builtin_prompt: ClassVar[str] = "judge.md"
    layout: ClassVar[Mapping[str, Slots]] = verdict.LAYOUT
    choice_first: ClassVar[bool] = False
    """Whether the choice is written before the reason, so that the reason can only explain it."""

    replicates: int = 1
    """Times that each pair is judged in each order; the majority decides, and without one it is a tie."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        require(1 <= self.replicates <= 99, "judge.replicates", self.replicates, "1 to 99")

    async def judge(self, request: JudgeRequest) -> Judgment:
        """Returns one ballot per pair, in the order of `request.pairs`."""
        asked = await self.answers(
            self.asks(request), ledger=request.ledger, purpose=f"judge {self.model}", tick=request.tick
        )
        ballots = [
            ballot_of(
                pair.key,
                [
                    asked.values.get(name) or asked.missing.get(name, "the model was not asked")
                    for name in self._ids(pair)
                ],
            )
            for pair in request.pairs
        ]
        return Judgment(ballots=ballots, calls=asked.facts)

    def request_for(self, pair: BlindPair, replicate: int = 0) -> ModelRequest:
        """Returns what the model is asked about one blind pair."""
        return self._ask(self.template(), pair, replicate).request

    def asks(self, request: JudgeRequest) -> list[Ask[Opinion]]:
        """Returns one item per pair and replicate; pairs of one problem are adjacent, as they share a prefix."""
        template = self.template()
        pairs = together(request.pairs, lambda pair: pair.problem.id)
        return [self._ask(template, pair, replicate) for pair in pairs for replicate in range(self.replicates)]

    def _ask(self, template: Template, pair: BlindPair, replicate: int) -> Ask[Opinion]:
        prompt = verdict_prompt(template, pair)
        schema = verdict_schema(choice_first=self.choice_first)
        return Ask(
            id=self._ids(pair)[replicate],
            request=self.make_request(prompt, schema, replicate),
            read=read_verdict,
            repair=partial(say_repair, template),
            prompt=prompt,
        )

    def _ids(self, pair: BlindPair) -> list[str]:
        if self.replicates == 1:
            return [pair.key]
        return [f"{pair.key}, replicate {i}" for i in range(self.replicates)]
