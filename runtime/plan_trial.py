"""One prompt, run with any number of plans: what each of them really loses."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from kvbudget.allocator import Certificate, Geometry, Plan, Status
from kvbudget.heuristics import TokenHeuristic

from .devices import input_device
from .prompts import future_length
from .replay import mean_divergence
from .session import budgeted

LEAST_FUTURE_TOKENS = 2
"""Fewest that ask a cut cache: one token alone is decoded, which makes room for more."""


@dataclass(frozen=True, slots=True, eq=False)
class PlanTrial:
    """A prompt whose context is cut by plans, and what follows it.

    Args:
        model: The model to run.
        context: Token ids that are read and then cut, [1, context].
        future: Token ids that ask, [1, future].
        expected: Logits of the full cache at the future tokens, [future, vocabulary].
    """

    model: PreTrainedModel
    context: Tensor
    future: Tensor
    expected: Tensor

    @classmethod
    @torch.inference_mode(False)
    @torch.no_grad()
    def of(cls, model: PreTrainedModel, ids: list[int], future_tokens: int | None) -> "PlanTrial":
        """Read a prompt with the full cache.

        Raises:
            ValueError: There is too little future or no context.
        """
        future = future_length(ids, future_tokens, LEAST_FUTURE_TOKENS)
        tokens = torch.tensor([ids], device=input_device(model))
        logits = model(input_ids=tokens, use_cache=False, logits_to_keep=future).logits[0]
        return cls(model, tokens[:, :-future], tokens[:, -future:], logits)

    @torch.inference_mode(False)
    @torch.no_grad()
    def divergence(self, plan: Plan, heuristic: TokenHeuristic) -> float:
        """What the model loses with a plan, with really freed memory, nats per future token."""
        with budgeted(self.model, plan, heuristic) as cache:
            self.model(input_ids=self.context, past_key_values=cache, logits_to_keep=1)
            logits = self.model(input_ids=self.future, past_key_values=cache).logits[0]
        return float(mean_divergence(self.expected, logits))


def trial_plan(capacity_tokens: NDArray[np.int64], context: int, geometry: Geometry) -> Plan:
    """A plan that cuts one context to these capacities; nothing is proven about it.

    Args:
        capacity_tokens: [layers, kv_heads].
        context: Tokens of the context.
        geometry: The caches of the model.
    """
    return Plan(
        capacity_tokens=capacity_tokens,
        context_tokens=context,
        batch_size=1,
        budget_bytes=int((capacity_tokens * geometry.token_bytes).sum()),
        certificate=Certificate("none", Status.FEASIBLE.name, 0.0, 0.0, 0.0),
        geometry=geometry,
        model="",
        heuristic="",
        heuristic_settings=(),
        measure="none",
    )
