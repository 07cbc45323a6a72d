"""A correct answer beats an incorrect one; everything else is a tie."""

from __future__ import annotations

from dataclasses import dataclass

from m3i import Ballot, BlindPair, Component, JudgeRequest, Judgment


@dataclass(kw_only=True)
class VerifierJudge(Component):
    """Ground truth: the problem source's own verifier decides.

    A correct answer beats an incorrect one; two correct or two incorrect answers tie. The verifier does not depend on
    the order, so it never splits, and its wins and losses are exactly the discordant pairs of McNemar's test.
    """

    async def judge(self, request: JudgeRequest) -> Judgment:
        """Returns one ballot per pair, from `request.source.verify`; each text is verified once."""
        right: dict[tuple[str, str], bool] = {}

        def is_right(pair: BlindPair, text: str) -> bool:
            key = (pair.problem.id, text)
            if key not in right:
                right[key] = request.source.verify(pair.problem, text).correct
            return right[key]

        ballots = []
        for done, pair in enumerate(request.pairs, start=1):
            a, b = is_right(pair, pair.a.text), is_right(pair, pair.b.text)
            choice = "tie" if a == b else ("a" if a else "b")
            reason = ("both are correct" if a else "both are incorrect") if a == b else "only one is correct"
            ballots.append(Ballot(key=pair.key, choice=choice, reason=reason))
            request.tick(done, len(request.pairs))
        return Judgment(ballots=ballots)
