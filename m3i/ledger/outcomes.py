"""What a call through the ledger can end in, beside the provider's own errors (m3i.ledger.request)."""

from __future__ import annotations

from dataclasses import dataclass

from m3i.errors import M3IError
from m3i.ledger.request import Reply


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply, and what it cost."""

    reply: Reply
    """As it is in the ledger: without secrets."""
    cost_usd: float | None
    """None: no price known."""
    reused: bool
    """It was in the ledger already, or another task or process got it meanwhile: nothing was paid for it here."""


class BudgetError(M3IError):
    """The next call could cost more than is left; nothing was sent. Finished calls are kept."""


class ReplayError(M3IError):
    """An answer that is needed is not in the ledger, and calls are not allowed."""


class OutageError(M3IError):
    """A call failed until its deadline. Finished calls are kept: the same command goes on from there."""
