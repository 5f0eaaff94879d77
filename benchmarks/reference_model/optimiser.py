"""Muon for the matrices, AdamW for the embedding and the norms.

Reference:
    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    https://kellerjordan.github.io/posts/muon/
"""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn


def orthogonal(gradient: Tensor) -> Tensor:
    """Bring the singular values of matrices [..., rows, columns] near one, by Newton-Schulz."""
    flip = gradient.shape[-2] > gradient.shape[-1]
    x = gradient.mT if flip else gradient
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if flip else x


class Optimiser:
    """Both optimisers behind one step; equally shaped matrices are made orthogonal together.

    Args:
        model: Its matrices, the embedding excepted, are trained by Muon.
        muon_lr: Step size of the matrices at scale 1.
        adam_lr: Step size of everything else at scale 1.
        momentum: Of Muon.
        decay: Weight decay of the matrices.
    """

    def __init__(
        self,
        model: nn.Module,
        muon_lr: float,
        adam_lr: float,
        momentum: float = 0.95,
        decay: float = 0.02,
    ) -> None:
        groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        rest = []
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                groups[parameter.shape].append(parameter)
            else:
                rest.append(parameter)
        self.groups = list(groups.values())
        self.moments = [torch.zeros(len(g), *g[0].shape) for g in self.groups]
        self.adam = torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
        self.muon_lr, self.adam_lr = muon_lr, adam_lr
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Take one step at `scale` times the learning rates, and drop the gradients."""
        lr = self.muon_lr * scale
        for group, moment in zip(self.groups, self.moments, strict=True):
            gradient = torch.stack([p.grad for p in group])  # [matrices, rows, columns]
            moment.mul_(self.momentum).add_(gradient)
            update = orthogonal(gradient.add_(moment, alpha=self.momentum))
            rows, columns = group[0].shape
            for parameter, direction in zip(group, update, strict=True):
                parameter.mul_(1 - lr * self.decay)
                parameter.add_(direction, alpha=-lr * math.sqrt(max(1, rows / columns)))
                parameter.grad = None
        for options in self.adam.param_groups:
            options["lr"] = self.adam_lr * scale
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {"adam": self.adam.state_dict(), "moments": self.moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the optimiser that gave `state` stopped."""
        self.adam.load_state_dict(state["adam"])
        self.moments = state["moments"]
