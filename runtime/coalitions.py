"""Weigh every cache by what it contributes to coalitions of caches, in true runs of the model.

A game: the caches of a coalition keep everything, all others only their first and latest tokens.
A coalition is worth minus the divergence of the model's predictions from those with full caches.
Shapley's value shares out the worth of all caches together; it is estimated from complementary
contributions, which take one run of a coalition and one of its complement and tell something
about every cache.

Reference:
    Sun et al., "CoKV: Optimizing KV Cache Allocation via Cooperative Game", 2025.
    https://arxiv.org/abs/2502.17501
    Zhang et al., "Efficient Sampling Approaches to Shapley Value Approximation", SIGMOD 2023, for
    complementary contributions. https://doi.org/10.1145/3588728
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kvbudget.allocator import Geometry
from kvbudget.heuristics import SinkRecent

from .evaluating import evaluating
from .eviction import RECENT_TOKENS, SINK_TOKENS
from .plan_trial import PlanTrial, trial_plan
from .prompts import Prompt, prompt_ids
from .session import geometry_of

Floats = NDArray[np.float64]
Members = NDArray[np.bool_]


def shapley_importance(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    coalitions: int = 64,
    member_share: float = 0.5,
    small_tokens: int = SINK_TOKENS + RECENT_TOKENS,
    future_tokens: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Floats:
    """Estimate the Shapley value of every cache, none below 0.

    All coalitions are of one size, a slice of all there are. A value below 0 is noise or belongs
    to a cache that the model does better without; it becomes 0. The estimate is coarse: its error
    shrinks with the root of ``coalitions``, and what one cache is worth disturbs all others. The
    authors' utility is the score of a task; a divergence needs none.

    Pass the numbers on to ``solvers.CoKV(importance=...)``.

    Args:
        model: A causal LM of a supported family.
        prompts: Texts or token ids like those the model will meet, each a context and what
            follows it. Every coalition reads every prompt twice.
        tokenizer: Needed for texts.
        coalitions: Coalitions drawn, each of which plays against its complement; at least 1.
        member_share: Share of all caches in a coalition, between 0 and 1.
        small_tokens: Tokens that a cache outside the coalition keeps; at least 1.
        future_tokens: Last tokens of each prompt that are predicted; a quarter of the prompt, at
            most 256, by default.
        seed: Seed of the coalitions.
        progress: Show a progress bar on stderr.

    Returns:
        Importance, [layers, kv_heads], float64, in nats per token: what of the divergence with
        only small caches the cache makes up for.

    Raises:
        UnsupportedModel: The model's caches cannot be cut exactly.
        ValueError: A number is out of its range, or the prompts cannot be used; says which.
    """
    geometry = geometry_of(model)
    for name, value in (("coalitions", coalitions), ("small_tokens", small_tokens)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, but got {name}={value}.")
    drawn = draw_coalitions(geometry.caches, coalitions, member_share, seed)
    with evaluating(model):
        game = _Game.of(model, prompt_ids(model, prompts, tokenizer), future_tokens, small_tokens)
        bar: Iterable[Members] = tqdm(drawn, desc="playing", unit="coalition", disable=not progress)
        values = shapley_values(game.utility, bar, geometry.caches)
    return np.maximum(values, 0.0).reshape(geometry.layers, geometry.kv_heads)


def draw_coalitions(
    players: int, coalitions: int, member_share: float = 0.5, seed: int = 0
) -> Members:
    """Draw coalitions of one size, [coalitions, players]; neither all players nor none.

    Raises:
        ValueError: If the share is not between 0 and 1.
    """
    if not 0 < member_share < 1:
        raise ValueError(
            f"`member_share` must be between 0 and 1, but got member_share={member_share}."
        )
    size = min(max(round(member_share * players), 1), players - 1)
    ranks = np.random.default_rng(seed).random((coalitions, players)).argsort(axis=1)
    drawn: Members = ranks < size
    return drawn


def shapley_values(
    utility: Callable[[Members], float], coalitions: Iterable[Members], players: int
) -> Floats:
    """Estimate Shapley values from complementary contributions.

        value[i] = (u(all) - u(none)) / n + (n - 1) / n * mean_size mean_S (u(S) - u(rest))

    over the coalitions ``S`` of a size that hold ``i``; a complement is a coalition too, of its
    own size. The second term is shifted to sum to 0, as it does when all coalitions are given, so
    that the values always sum to ``u(all) - u(none)``. With all coalitions they are exact; with
    all of one size they are exact where contributions simply add up.

    Args:
        utility: Worth of the players marked in a mask, [players], bool.
        coalitions: Masks, [players] each, of at least one player and not all.
        players: Number of players.

    Returns:
        [players].
    """
    total, count = np.zeros((2, players + 1, players))
    for members in coalitions:
        gain = utility(members) - utility(~members)
        for side, worth in ((members, gain), (~members, -gain)):
            total[side.sum(), side] += worth
            count[side.sum(), side] += 1
    sizes_met = np.maximum((count > 0).sum(axis=0), 1)
    contribution = (total / np.maximum(count, 1)).sum(axis=0) / sizes_met
    contribution -= contribution.mean()
    everybody = np.ones(players, dtype=np.bool_)
    whole = utility(everybody) - utility(~everybody)
    values: Floats = (whole + (players - 1) * contribution) / players
    return values


@dataclass(frozen=True, slots=True)
class _Game:
    """Says what coalitions of a model's caches are worth.

    Args:
        geometry: The caches of the model.
        trials: Prompts to run.
        small_tokens: Tokens that a cache outside the coalition keeps.
    """

    geometry: Geometry
    trials: list[PlanTrial]
    small_tokens: int

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        prompts: list[list[int]],
        future_tokens: int | None,
        small_tokens: int,
    ) -> "_Game":
        """Run every prompt with full caches first."""
        trials = [PlanTrial.of(model, ids, future_tokens) for ids in prompts]
        return cls(geometry_of(model), trials, small_tokens)

    def utility(self, members: Members) -> float:
        """Minus the divergence from full caches, nats per token, mean over the prompts."""
        if members.all():
            return 0.0
        return -float(np.mean([self._divergence(members, trial) for trial in self.trials]))

    def _divergence(self, members: Members, trial: PlanTrial) -> float:
        """With room for the whole context in the caches of the coalition."""
        geometry, context = self.geometry, trial.context.shape[1]
        whole = np.array(geometry.most_tokens(context))[:, None]
        small = np.minimum(whole, self.small_tokens)
        shape = (geometry.layers, geometry.kv_heads)
        capacity = np.where(members.reshape(shape), whole, small) * geometry.present
        return trial.divergence(trial_plan(capacity, context, geometry), SinkRecent())
