"""How evenly the routers use their experts: the load-balancing loss of training and the loads on the model card."""

from typing import TYPE_CHECKING

from .architecture import TinyModel

if TYPE_CHECKING:
    import torch

# Shapes: N tokens of a batch, E routed experts, K experts chosen for a token.


class RouterWatch:
    """Collects the router outputs of a forward pass, for the load-balancing loss and the expert load."""

    def __init__(self, model: TinyModel) -> None:
        """Hooks every router of the model."""
        self.outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for layer in model.model.layers[model.config.first_k_dense_replace :]:
            layer.mlp.gate.register_forward_hook(self._collect)

    def _collect(self, module: "torch.nn.Module", inputs: object, output: "tuple[torch.Tensor, ...]") -> None:
        logits_NE, _, chosen_NK = output
        self.outputs.append((logits_NE, chosen_NK))

    def balance_loss(self, keep_N: "torch.Tensor") -> "tuple[torch.Tensor, list[list[float]]]":
        """Returns the load-balancing loss and each layer's load of each expert; drops the collected outputs.

        The loss is E · Σ_e f_e · P_e, averaged over layers: f_e is the share of choices that went to expert e, P_e its
        mean probability. It is 1 when perfectly balanced. Source: DeepSeek-V2, 2405.04434, equations 23 to 25.

        Args:
            keep_N: 1.0 for the tokens that count, 0.0 for padding.
        """
        import torch

        losses, loads = [], []
        for logits_NE, chosen_NK in self.outputs:
            experts = logits_NE.shape[-1]
            weight_N = keep_N / keep_N.sum()
            chosen_NE = torch.zeros_like(logits_NE).scatter(1, chosen_NK, 1.0) / chosen_NK.shape[-1]
            share_E = (chosen_NE * weight_N[:, None]).sum(0)
            probability_E = (logits_NE.softmax(-1) * weight_N[:, None]).sum(0)
            losses.append(experts * (share_E * probability_E).sum())
            loads.append(share_E.tolist())
        self.outputs = []
        return torch.stack(losses).mean(), loads
