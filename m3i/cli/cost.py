"""`m3i cost OVERRIDES` and `ledger.mode=estimate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3i.errors import M3IError

if TYPE_CHECKING:
    from m3i.config.experiment import Experiment


def cost_command(arguments: list[str]) -> None:
    """m3i cost OVERRIDES: what the experiment's remote calls would come to; nothing is called."""
    from m3i.config.experiment import Experiment
    from m3i.sweep.plan import judged_jobs

    if any(argument.startswith("-") for argument in arguments):
        raise M3IError(
            "usage: m3i cost OVERRIDES, such as observer=claude; with flags of Hydra (-m, --config-dir): "
            "m3i ... ledger.mode=estimate"
        )
    experiment = Experiment.compose(*arguments)
    in_sweep = any(word.lstrip("+").startswith("sweep=") for word in arguments)
    print_cost(experiment, judged_jobs(experiment.settings.sweep) if in_sweep else 1)


def print_cost(experiment: Experiment, n_jobs: int = 1) -> None:
    """The dry run's table and its sum; of a sweep that judges `n_jobs` times."""
    from rich.console import Console

    from m3i.engine.cost import cost_table, estimate_cost, remarks, times_judged, usd

    found = estimate_cost(experiment)
    if n_jobs > 1:
        found = times_judged(found, n_jobs)
    if not found.lines:
        print("This experiment calls no provider: it costs nothing.")
        return
    Console(highlight=False, width=max(100, Console().width)).print(cost_table(found))
    if found.usd is None:
        print("\nA model has no known price: give it in ledger.prices for a sum.")
    else:
        print(
            f"\nAll together {usd(found.usd)} expected, {usd(found.usd_at_most)} at most (every reply of the greatest "
            f"length, and each asked for twice)."
        )
    for line in remarks(found):
        print(line)
