"""Layers named by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from m3i import Component, ConfigError, LayerSelection, SelectionRequest, TargetInfo, option, require

from .candidates import existing_layers, is_layer_list, spell


@dataclass(kw_only=True)
class ManualLayers(Component):
    """Selects exactly the layers given, e.g. `selector.layers=[6,7,8,10,13]`; reads no score."""

    libraries: ClassVar[tuple[str, ...]] = ()

    layers: list[int] = option(factory=list)
    """Layers to train, numbered from 0; at least one."""

    def __post_init__(self) -> None:
        """Checks the values; an empty list, the default, is refused only once the target is known."""
        require(
            not self.layers or is_layer_list(self.layers),
            "selector.layers",
            self.layers,
            "distinct layer numbers from 0",
        )

    def check(self, info: TargetInfo) -> None:
        """Refuses an empty list and layers that the target does not have."""
        if not self.layers:
            raise ConfigError(
                f"selector.layers = []: name the layers of {info.name} to train, 0 to {info.n_layers - 1}, "
                f"e.g. selector.layers=[{min(1, info.n_layers - 1)}]"
            )
        existing_layers("selector.layers", self.layers, info)

    def select(self, request: SelectionRequest) -> LayerSelection:
        """Returns the layers, ascending."""
        self.check(request.info)
        layers = existing_layers("selector.layers", self.layers, request.info)
        return LayerSelection(
            layers=layers,
            candidates=tuple(range(request.info.n_layers)),
            reason=f"chosen by hand: {spell(layers)}",
        )
