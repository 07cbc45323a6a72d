"""Attributors that need no key: `logit_lens`, `attribution_patching`, `ablation` and `votes`."""

import m3i


@m3i.hookimpl
def register_attributors(register: m3i.Register) -> None:
    """Offers `logit_lens`, `attribution_patching`, `ablation` and `votes`."""
    from .ablation import Ablation
    from .attribution_patching import AttributionPatching
    from .logit_lens import LogitLens
    from .votes import Votes

    register("logit_lens", LogitLens)
    register("attribution_patching", AttributionPatching)
    register("ablation", Ablation)
    register("votes", Votes)
