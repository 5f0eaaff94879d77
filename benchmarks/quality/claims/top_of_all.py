"""The best tokens of all caches together, by their scores as they are: KVzip's own division."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from kvbudget import Adaptation
from kvbudget.runtime.adaptation import LayerScores

# what the runtime keeps in every cache whatever the score
PROTECTED_TOKENS = 20


@dataclass(frozen=True, slots=True)
class TopOfAll(Adaptation):
    """Keep as many tokens as the plan does, those of highest score wherever they lie.

    For one prompt at a time, in models whose caches all need the same bytes for a token.
    """

    sees_all_layers: ClassVar[bool] = True

    def divide(self, layers: Sequence[LayerScores]) -> list[Tensor]:
        """Count how many of the best tokens each cache owns."""
        longest = max(layer.scores.shape[2] for layer in layers)
        scores = torch.cat([_reached(layer, longest) for layer in layers], dim=1)[0]
        best = scores.sort(dim=-1, descending=True).values
        best[:, :PROTECTED_TOKENS] = torch.inf
        places = sum(int(layer.capacity_tokens.sum()) for layer in layers)
        winners = best.flatten().topk(places).indices // best.shape[1]
        owned = winners.bincount(minlength=len(best)).cpu()
        heads = [layer.scores.shape[1] for layer in layers]
        return [part.unsqueeze(0) for part in owned.split(heads)]


def _reached(layer: LayerScores, longest: int) -> Tensor:
    """Scores of what may still be seen, [batch, kv_heads, longest], the lowest elsewhere."""
    scores = layer.scores.masked_fill(~layer.reach, -torch.inf)
    return pad(scores, (0, longest - scores.shape[2]), value=-torch.inf)
