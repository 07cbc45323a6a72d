"""`m3i cost`: what an experiment's remote calls would come to."""

from __future__ import annotations

from m3i.errors import M3IError


def cost_command(arguments: list[str]) -> None:
    """m3i cost OVERRIDES: what the experiment's remote calls would come to; nothing is called."""
    from m3i.config.experiment import Experiment
    from m3i.engine.cost import print_cost
    from m3i.sweep.plan import judged_jobs

    if any(argument.startswith("-") for argument in arguments):
        raise M3IError(
            "usage: m3i cost OVERRIDES, such as observer=claude; with flags of Hydra (-m, --config-dir): "
            "m3i ... ledger.mode=estimate"
        )
    experiment = Experiment.compose(*arguments)
    in_sweep = any(word.lstrip("+").startswith("sweep=") for word in arguments)
    print_cost(experiment, judged_jobs(experiment.settings.sweep) if in_sweep else 1)
