"""Places in caches, handed out to the tokens that gain most, over several caches at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .adaptation import LayerScores

LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True, slots=True, eq=False)
class Queue:
    """Tokens of some caches in the order in which each cache keeps them.

    Args:
        gains: What the next place of a cache is good for, [batch, caches, ranks], float32, finite,
            never rising along the ranks up to `reachable`.
        reachable: Tokens that each cache could hold, [batch, caches], int64.
        planned: Tokens that the plan lets each hold, [batch, caches], int64.
        floor: Tokens that each holds in any case, at most `planned` and `reachable`, same shape.
    """

    gains: Tensor
    reachable: Tensor
    planned: Tensor
    floor: Tensor


def queue_of(layer: LayerScores, gains: Tensor, floor: float) -> Queue:
    """Line up the tokens of one layer.

    Args:
        layer: Whose tokens.
        gains: What `in_order` made of their scores.
        floor: Share of its planned capacity that each cache keeps.
    """
    reachable = layer.reach.sum(-1)
    planned = layer.capacity_tokens.to(reachable.device).expand_as(reachable)
    # a share of 0.2 of 5 tokens is 1 token, whatever floating point makes of it
    share = (planned.double() * floor - 1e-9).ceil().long()
    protected = planned.clamp(max=layer.sinks + layer.recent)
    return Queue(gains, reachable, planned, torch.maximum(share, protected).minimum(reachable))


def in_order(layer: LayerScores, gains: Tensor) -> Tensor:
    """What each token gains its cache, in the order in which the cache keeps its tokens.

    Protected tokens go before others that may score higher. They count as much as the best token
    they go before: whoever wants that one has to take them first.

    Args:
        layer: Whose tokens.
        gains: Their scores, or something else that rises with them, [batch, kv_heads, tokens].

    Returns:
        Same shape, never rising over the tokens in reach, which come first.
    """
    count = layer.reach.cumsum(-1)
    last = count[..., -1:]
    protected = (count <= layer.sinks) | (count > last - layer.recent)
    gains = gains.masked_fill(~layer.reach, -torch.inf)
    best = gains.masked_fill(protected, -torch.inf).amax(-1, keepdim=True)
    best = torch.where(last > layer.sinks + layer.recent, best, gains.amax(-1, keepdim=True))
    gains = torch.where(protected & layer.reach, best, gains)
    return gains.sort(dim=-1, descending=True).values


def hand_out(queue: Queue, token_bytes: Tensor) -> Tensor:
    """Give places to the tokens that gain most per byte until the plan's bytes are spent.

    Where all tokens cost the same bytes no other division above the floors gains more. Otherwise
    a token that does not fit any more is passed over for cheaper ones. Of equal gains the token
    that its own cache would keep first goes first, then that of the first cache.

    Places that no token can fill yet stay where the plan has them, for tokens to come.

    Args:
        queue: The tokens in line; gains are per byte.
        token_bytes: Bytes of a token of each cache, [caches], int64.

    Returns:
        Capacities, [batch, caches], int64.
    """
    # [batch, ranks, caches]: rank by rank, so that equal gains are served in turn
    keys = _keys(queue).transpose(1, 2)
    cost = token_bytes.expand(keys.shape[1:]).flatten()
    budgets = (queue.planned * token_bytes).sum(1).tolist()
    rows = [_bought(row.flatten(), cost, left) for row, left in zip(keys, budgets, strict=True)]
    return torch.stack(rows).view(keys.shape).sum(1)


def _bought(keys: Tensor, cost: Tensor, left: int) -> Tensor:
    """Places that are paid for, the highest keys first and of equal ones the first, as a mask."""
    cheapest, dearest = (int(bytes_) for bytes_ in cost.aminmax())
    # so many fit whatever they cost, which spares sorting them
    surely = min(left // dearest, len(keys))
    least = keys.kthvalue(len(keys) - surely + 1).values if surely else keys.new_tensor(torch.inf)
    bought = keys > least
    if cheapest == dearest:
        equal = (keys == least).nonzero()[:, 0]
        bought[equal[: surely - int(bought.sum())]] = True
        return bought
    return _bought_behind(bought, keys, cost, left)


def _bought_behind(bought: Tensor, keys: Tensor, cost: Tensor, left: int) -> Tensor:
    """The same where tokens cost unequal bytes, given those that fit whatever they cost."""
    left -= int(cost[bought].sum())
    others = (~bought).nonzero()[:, 0]
    others = others[keys[others].argsort(descending=True, stable=True)]
    while len(others):
        fits = cost[others].cumsum(0) <= left
        bought[others[fits]] = True
        left -= int(cost[others[fits]].sum())
        # the first that does not fit rules out its size, so there are few passes
        others = others[~fits & (cost[others] <= left)]
    return bought


def _keys(queue: Queue) -> Tensor:
    """What the places are sorted by: the floor's, tokens by gain, planned places, the rest."""
    longest = int(queue.planned.max())
    gains = queue.gains.clamp(min=LOWEST / 2, max=-LOWEST)
    missing = longest - gains.shape[2]
    # enough ranks for every planned place, even beyond the last token
    gains = torch.nn.functional.pad(gains, (0, max(0, missing)))
    rank = torch.arange(gains.shape[2], device=gains.device)
    beyond = torch.where(rank < queue.planned[..., None], LOWEST, -torch.inf)
    keys = torch.where(rank < queue.reachable[..., None], gains, beyond)
    return keys.masked_fill(rank < queue.floor[..., None], torch.inf)
