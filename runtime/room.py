"""How many tokens each cache may hold right now."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvbudget.allocator import InfeasibleBudget, Plan

from .device_shares import DeviceShare, divide
from .even_share import EvenShare


@dataclass(frozen=True, slots=True)
class Room:
    """The plan's capacities, and the rule that nothing is evicted while everything fits.

    Args:
        plan: Capacities per layer and KV head for a number of sequences.
        devices: Where each layer lies, [layers]; None if all lie together.
    """

    plan: Plan
    devices: Sequence[Hashable] | None = None
    shares: tuple[DeviceShare, ...] = field(init=False)
    """What each device holds."""
    even: EvenShare = field(init=False)
    """What limits caches that all hold equally many tokens, besides the devices."""

    def __post_init__(self) -> None:
        """Divide the budget over the devices."""
        even = EvenShare.of(self.plan)
        object.__setattr__(self, "even", even)
        object.__setattr__(self, "shares", divide(self.plan, self.devices, even.tokens(1)))

    def even_share_tokens(self, batch: int) -> int:
        """Tokens per cache that fit the budget if all caches of `batch` rows hold equally many.

        The tightest device decides, or another limit that the plan was made with.
        """
        tightest = min(share.even_tokens(batch) for share in self.shares)
        return min(tightest, self.even.tokens(batch))

    def everything_fits(self, batch: int, seen_tokens: int) -> bool:
        """Whether the budget holds all tokens so far in all caches."""
        return seen_tokens <= self.even_share_tokens(batch)

    def capacities(self, layer: int, batch: int, seen_tokens: int) -> Tensor:
        """Capacity of every KV head of `layer` once `seen_tokens` columns have been read.

        Returns:
            [1, kv_heads], int64, on the CPU; the same for every row.

        Raises:
            InfeasibleBudget: More rows than the plan was made for, and they do not fit.
        """
        kv_heads = self.plan.geometry.shape_of(layer).kv_heads
        shared = self.even_share_tokens(batch)
        if seen_tokens <= shared:
            return torch.full((1, kv_heads), shared)
        if batch > self.plan.batch_size:
            raise InfeasibleBudget(
                f"The plan is for {self.plan.batch_size} row(s), but the input has {batch} (beams "
                f"and returned sequences count), which fit only up to {shared} tokens. Allocate "
                f"with batch_size={batch}."
            )
        return torch.tensor(self.plan.capacity_tokens[layer, :kv_heads])[None]

    def check_prompt(self, prompt_tokens: int) -> None:
        """Refuse a prompt that the plan was not made for.

        Raises:
            InfeasibleBudget: The prompt is longer than the plan's context.
        """
        if prompt_tokens > self.plan.context_tokens:
            raise InfeasibleBudget(
                f"The plan holds contexts of at most {self.plan.context_tokens} tokens, but the "
                f"prompt has {prompt_tokens}. Allocate with context_tokens={prompt_tokens}."
            )
