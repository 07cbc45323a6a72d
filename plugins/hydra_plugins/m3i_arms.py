"""The Hydra sweeper `arms`. Hydra accepts sweepers only from this namespace package; the work is done in m3i.sweep."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ArmSweeper(Sweeper):
    """Runs the arms of one experiment over its training seeds, through any launcher, and compares them."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra: names the sweep's folder and creates the launcher."""
        from hydra.core.plugins import Plugins

        from m3i.sweep.sweeper import settle_folder

        settle_folder(config)
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Called by Hydra with the overrides of the task."""
        from m3i.sweep.sweeper import run_sweep

        assert self.config is not None
        assert self.launcher is not None
        return run_sweep(self.config, self.launcher, list(arguments), self.validate_batch_is_legal)


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="arms",
    node={"_target_": "hydra_plugins.m3i_arms.ArmSweeper"},
    provider="m3i",
)
