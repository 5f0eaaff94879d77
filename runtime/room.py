"""How many tokens each cache may hold right now."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvbudget.allocator import InfeasibleBudget, Plan


@dataclass(frozen=True, slots=True)
class Room:
    """The plan's capacities, and the rule that nothing is evicted while everything fits.

    Args:
        plan: Capacities per layer and KV head for a number of sequences.
    """

    plan: Plan

    def even_share_tokens(self, batch: int) -> int:
        """Tokens per cache that fit the budget if all caches of `batch` rows hold equally many."""
        geometry = self.plan.geometry
        per_token = geometry.layers * geometry.kv_heads * geometry.bytes_per_token
        return self.plan.budget_bytes // (per_token * batch)

    def everything_fits(self, batch: int, seen_tokens: int) -> bool:
        """Whether the budget holds all tokens so far in all caches."""
        return seen_tokens <= self.even_share_tokens(batch)

    def capacities(self, layer: int, batch: int, seen_tokens: int) -> Tensor:
        """Capacity of every KV head of `layer` once `seen_tokens` columns have been read.

        Returns:
            [kv_heads], int64, on the CPU.

        Raises:
            InfeasibleBudget: More rows than the plan was made for, and they do not fit.
        """
        shared = self.even_share_tokens(batch)
        if seen_tokens <= shared:
            return torch.full((self.plan.geometry.kv_heads,), shared)
        if batch > self.plan.batch_size:
            raise InfeasibleBudget(
                f"The plan holds {self.plan.batch_size} sequence(s) beyond {shared} tokens, but "
                f"the input has {batch} rows (beams and returned sequences count as rows). "
                f"Allocate with batch_size={batch}."
            )
        return torch.tensor(self.plan.capacity_tokens[layer])

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
