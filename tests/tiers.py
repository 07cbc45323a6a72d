"""Which cases of a parametrized test run with the quick tests."""

from collections.abc import Sequence
from typing import Any

import pytest


def first_quick(values: Sequence[Any]) -> list[Any]:
    """The first value as it is, the others marked slow: CI runs them all, the quick tests one of the kind."""
    return [values[0], *(pytest.param(value, marks=pytest.mark.slow) for value in values[1:])]
