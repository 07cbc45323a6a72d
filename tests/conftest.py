"""What every test starts with."""

import logging
import os
import shutil

import pytest
from small_run import small_run_in

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core each, before torch counts them


def pytest_collection_modifyitems(items):
    """What needs a cluster is slow too: `-m "not slow"` are the quick tests."""
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A finished run, made once for all of pytest-xdist's workers; its store is there to be read or copied."""
    base = tmp_path_factory.getbasetemp()
    return small_run_in((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "small-run")


@pytest.fixture
def small_store(small_run, tmp_path):
    """A copy of that run's store, to write into or to break."""
    return shutil.copytree(small_run.store, tmp_path / "store")


@pytest.fixture(autouse=True)
def no_handlers_left_behind():
    """Hydra gives the root logger handlers on streams that are closed when the test that ran it has ended."""
    root = logging.getLogger()
    before = [*root.handlers]
    yield
    for handler in [*root.handlers]:
        if handler not in before and type(handler).__module__.startswith("logging"):
            root.removeHandler(handler)
