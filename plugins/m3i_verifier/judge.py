"""Right beats wrong; everything else is a tie."""

from __future__ import annotations

from dataclasses import dataclass

from m3i import Ballot, BlindPair, Component, JudgeRequest, Judgment


@dataclass(kw_only=True)
class VerifierJudge(Component):
    """Ground truth: the problem source's own verifier decides.

    A right answer beats a wrong one; two right or two wrong answers tie. It has no order to be biased by, so it never
    splits, and its wins and losses are exactly the discordant pairs of McNemar's test.
    """

    async def judge(self, request: JudgeRequest) -> Judgment:
        """One ballot a pair, from `request.source.verify`; each text is verified once."""
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
            reason = ("both are right" if a else "both are wrong") if a == b else "one is right, the other wrong"
            ballots.append(Ballot(key=pair.key, choice=choice, reason=reason))
            request.tick(done, len(request.pairs))
        return Judgment(ballots=ballots)
