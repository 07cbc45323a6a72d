"""A plugin for tests of keys: a target with facts and no weights, in a module of its own, whose source is its key's."""

from dataclasses import dataclass
from types import ModuleType

from test_contract import INFO

import m3i


@dataclass(kw_only=True)
class Probe(m3i.Component):
    """A target with facts and no weights."""

    def describe(self):
        return INFO

    def load(self):
        raise AssertionError("nothing may be computed here")


def plugin():
    module = ModuleType("probe")

    @m3i.hookimpl
    def register_targets(register):
        register("probe", Probe)

    module.register_targets = register_targets
    return module, "probe", "1"
