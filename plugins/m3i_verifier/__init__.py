"""The judge `verifier`: ground truth from the problem source."""

from __future__ import annotations

from typing import Any

import m3i


@m3i.hookimpl
def register_judges(register: Any) -> None:
    """Registers `verifier`."""
    from m3i_verifier.judge import VerifierJudge

    register("verifier", VerifierJudge)
