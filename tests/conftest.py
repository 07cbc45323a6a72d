"""What every test starts with."""

import logging

import pytest


@pytest.fixture(autouse=True)
def no_handlers_left_behind():
    """Hydra gives the root logger handlers on streams that are closed when the test that ran it has ended."""
    root = logging.getLogger()
    before = [*root.handlers]
    yield
    for handler in [*root.handlers]:
        if handler not in before and type(handler).__module__.startswith("logging"):
            root.removeHandler(handler)
