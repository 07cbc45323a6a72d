"""The judge `verifier`: ground truth from the problem source."""

import m3i


@m3i.hookimpl
def register_judges(register: m3i.Register) -> None:
    """Offers `verifier`."""
    from .judge import VerifierJudge

    register("verifier", VerifierJudge)
