"""`m3i cost`: estimates what an experiment's remote calls would cost."""

from __future__ import annotations

from m3i.errors import M3IError


def cost_command(arguments: list[str]) -> None:
    """m3i cost OVERRIDES: estimates what the experiment's remote calls would cost, without calling anything."""
    from m3i.config.experiment import Experiment
    from m3i.engine.cost import print_cost
    from m3i.sweep.plan import judged_jobs

    if any(argument.startswith("-") for argument in arguments):
        raise M3IError(
            "usage: m3i cost OVERRIDES, such as observer=claude; with Hydra's flags (-m, --config-dir) use "
            "m3i ... ledger.mode=estimate"
        )
    experiment = Experiment.compose(*arguments)
    in_sweep = any(word.lstrip("+").startswith("sweep=") for word in arguments)
    print_cost(experiment, judged_jobs(experiment.settings.sweep) if in_sweep else 1)
