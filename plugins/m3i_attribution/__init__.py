"""Attributors that need no key: `logit_lens`, `attribution_patching`, `ablation` and `votes`."""

from __future__ import annotations

from typing import Any

import m3i


@m3i.hookimpl
def register_attributors(register: Any) -> None:
    """Registers the four attributors."""
    from m3i_attribution.ablation import Ablation
    from m3i_attribution.attribution_patching import AttributionPatching
    from m3i_attribution.logit_lens import LogitLens
    from m3i_attribution.votes import Votes

    register("logit_lens", LogitLens)
    register("attribution_patching", AttributionPatching)
    register("ablation", Ablation)
    register("votes", Votes)
