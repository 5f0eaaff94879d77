"""All caches of the model, divided by the scores of the prompt and the curves of the plan.

The plan's curves say what a cache loses at a number of tokens, whatever the calibration prompts
asked for later. This prompt's scores say how much of that it loses here: the share of the cache's
score mass that is not kept. Both are convex in the tokens, and so is their mean:

    minimise    sum_c  (1 - trust) * curve[c](tokens[c]) + trust * worth[c] * lost_mass[c]
    subject to  the bytes that the plan gives one sequence

where a cache's worth is all that its curve loses. With one price of a byte for all caches the
division is optimal. Where tokens of all layers cost the same bytes that is exact; otherwise a
better division could save no more than the last token that did not fit.

Reference:
    Original. Fox, "Discrete optimization via marginal analysis", Management Science, 1966, for why
    taking the best token per byte is optimal. https://doi.org/10.1287/mnsc.13.3.210
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from .adaptation import Adaptation, LayerScores, check_share
from .expected import Expected
from .gains import gains_in_order, token_shares
from .places import hand_out, in_order, queue_of


@dataclass(frozen=True, slots=True)
class Global(Adaptation):
    """Solve over all caches of the model once the whole prompt has been read.

    Until then every layer holds all of its keys and values, so the peak while a prompt is read is
    the full cache and the budget; afterwards the cache is within its budget. Memory moves between
    layers on one device; a layer whose keys the model rewrites keeps the plan's capacities.

    Every cache keeps its protected tokens (sinks and recent ones), or its planned capacity if that
    is less.

    Args:
        floor: Share of its planned capacity that every cache keeps at least, from 0 to 1.
        trust: Weight of the prompt against the profile, from 0 (the profile's curves alone, for
            a context of this length) to 1 (the prompt alone). A plan that does not hold its
            curves leaves the prompt alone, with all caches worth the same.

    Raises:
        TypeError: If a share is not a number.
        ValueError: If a share is not from 0 to 1.
    """

    sees_all_layers: ClassVar[bool] = True

    floor: float = 0.2
    trust: float = 0.5

    def __post_init__(self) -> None:
        """Check the shares."""
        check_share("floor", self.floor)
        check_share("trust", self.trust)

    def divide(self, layers: Sequence[LayerScores]) -> list[Tensor]:
        """Divide the bytes of all these layers."""
        heads = [layer.scores.shape[1] for layer in layers]
        together, token_bytes = _joined(layers)
        # float32, so that the order in which a device adds does not decide which token is kept
        gains = (self._gains(together) / token_bytes[:, None]).float()
        queue = queue_of(together, gains, self.floor)
        return list(hand_out(queue, token_bytes).cpu().split(heads, 1))

    def _gains(self, caches: LayerScores) -> Tensor:
        """What each token saves, best first, [batch, caches, tokens], float64."""
        if caches.expected is None:
            return in_order(caches, token_shares(caches.scores, caches.reach))
        return gains_in_order(caches, caches.expected, self.trust)


def _joined(layers: Sequence[LayerScores]) -> tuple[LayerScores, Tensor]:
    """The caches of all layers side by side, and the bytes of a token of each, [caches]."""
    batch = len(layers[0].scores)
    longest = max(layer.scores.shape[2] for layer in layers)
    missing = [(0, longest - layer.scores.shape[2]) for layer in layers]
    together = LayerScores(
        torch.cat([pad(layer.scores, by) for layer, by in zip(layers, missing, strict=True)], 1),
        torch.cat([pad(layer.reach, by) for layer, by in zip(layers, missing, strict=True)], 1),
        torch.cat([layer.capacity_tokens.expand(batch, -1) for layer in layers], 1),
        expected=_side_by_side(layers),
        sinks=layers[0].sinks,
        recent=layers[0].recent,
    )
    sizes = [layer.scores.new_full(layer.scores.shape[1:2], layer.token_bytes) for layer in layers]
    return together, torch.cat(sizes).long()


def _side_by_side(layers: Sequence[LayerScores]) -> Expected | None:
    """What is expected of all caches; None if nothing is known of some."""
    known = [layer.expected for layer in layers if layer.expected is not None]
    if len(known) < len(layers):
        return None
    together = Expected(
        torch.cat([each.ends for each in known]), torch.cat([each.savings for each in known])
    )
    return together.to(layers[0].scores.device)
