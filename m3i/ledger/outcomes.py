"""What a call through the ledger can end in, besides the provider's errors (m3i.ledger.request)."""

from __future__ import annotations

from dataclasses import dataclass

from m3i.errors import M3IError
from m3i.ledger.request import Reply


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply, and what it cost."""

    reply: Reply
    """The reply as the ledger holds it, without secrets."""
    cost_usd: float | None
    """None if no price is known."""
    reused: bool
    """Whether it was in the ledger already, or another task or process made the call: nothing was paid for it here."""


class BudgetError(M3IError):
    """The next call could cost more than is left of the budget; it was not sent. Finished calls are kept."""


class ReplayError(M3IError):
    """The ledger lacks an answer that is needed, and replay mode makes no calls."""


class OutageError(M3IError):
    """A call failed until its deadline. Finished calls are kept: the same command, run again, continues from there."""
