"""What tests of the ledger, and of what stands on it, share."""

import contextlib

import pytest

from m3i.config.settings import LedgerSettings
from m3i.ledger import Ledger, faults


@pytest.fixture
def short_waits(monkeypatch):
    """Attempts follow each other at once."""
    monkeypatch.setattr(faults, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(faults, "SPREAD_S", 0.01)


@pytest.fixture
def open_ledger(tmp_path):
    """Opens ledgers on one file by their settings; all are closed at the test's end."""
    with contextlib.ExitStack() as opened:

        def make(**settings):
            ledger = Ledger(LedgerSettings(**settings), default_path=tmp_path / "ledger.sqlite")
            return opened.enter_context(contextlib.closing(ledger))

        yield make
