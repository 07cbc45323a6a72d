"""The contract that every component keeps, ours and yours; run it as `m3i check-plugin NAME` or as a parametrized test.

    import pytest
    from m3i.contract import checks_of

    @pytest.mark.parametrize("check", checks_of("acme-m3i"), ids=str)
    def test_contract(check):
        check()

What a check needs to know (values to refuse, a second valid value) is stated with the plugin, in a table of `Case`
(docs/hooks.md, "Testing a plugin").
"""

from m3i.contract.case import Case
from m3i.contract.run import Check, checks, checks_of
from m3i.contract.subject import ContractError, NotStatedError

__all__ = ["Case", "Check", "ContractError", "NotStatedError", "checks", "checks_of"]
