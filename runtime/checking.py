"""Do the losses of a profile add up to what plans really lose? Run some and see."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kvbudget.allocator import Plan, Problem, Profile, ProfileCheck, solve
from kvbudget.allocator.certificate import Certificate
from kvbudget.allocator.solvers import Hull
from kvbudget.heuristics import TokenHeuristic

from .prompts import Prompt, future_length, prompt_ids
from .replay import mean_divergence
from .session import budgeted, check_same_model, geometry_of, plan_heuristic
from .watching import evaluating, input_device

PLANS = 60
KEPT = (0.05, 0.6)
_SPREAD = 0.7

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Choice:
    """A level for every cache, and what that is predicted to lose.

    Args:
        levels: [layers, kv_heads].
        loss: Sum over the caches.
        kept: Share of the context kept, mean over the caches.
        is_solved: Whether a solver chose.
    """

    levels: Ints
    loss: float
    kept: float
    is_solved: bool


def check_profile(
    model: PreTrainedModel,
    profile: Profile,
    prompts: Sequence[Prompt],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    heuristic: TokenHeuristic | None = None,
    plans: int = PLANS,
    future_tokens: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Profile:
    """Run plans on prompts and compare what they lose with what the profile predicts.

    Half of the plans are solved for budgets of 5 % to 60 % of the full cache, half have levels
    drawn at random around the same shares. Each runs on every prompt with really freed memory: the
    context is read and cut, and the future tokens ask. That is a forward pass for each plan and
    prompt. Use prompts that the profile was not measured on.

    Args:
        model: The model of the profile.
        profile: Losses to check.
        prompts: Texts or token ids, each a context and what follows it.
        tokenizer: Needed for texts.
        heuristic: Chooses the tokens to keep; the one the profile was measured for by default.
        plans: How many to run, at least 2.
        future_tokens: Last tokens of each prompt that ask; as in `measure_profile` by default.
        seed: Of the plans that are drawn.
        progress: Show a progress bar with the time left on stderr.

    Returns:
        The profile with the outcome as its `check`, which every plan made from it then shows.

    Raises:
        WrongModel: The profile was made for another model.
        UnsupportedModel: The model's caches cannot be cut exactly.
        ValueError: Prompts, plans or future tokens cannot be used; says which.
    """
    if plans < 2:
        raise ValueError(f"`plans` must be at least 2, but got plans={plans}.")
    found = prompt_ids(model, prompts, tokenizer)
    split = [(ids, future_length(ids, future_tokens)) for ids in found]
    longest = max(len(ids) - future for ids, future in split)
    check_same_model(_plan(profile, _full(profile), longest), geometry_of(model))
    choices = [*_solved(profile, plans - plans // 2, longest), *_drawn(profile, plans // 2, seed)]
    total = np.zeros(len(choices))
    with (
        evaluating(model),
        tqdm(
            total=len(choices) * len(split), desc="checking", unit="run", disable=not progress
        ) as bar,
    ):
        for ids, future in split:
            runner = _Runner.of(model, ids, future)
            for index, choice in enumerate(choices):
                plan = _plan(profile, choice, len(ids) - future)
                total[index] += runner.divergence(plan, heuristic or plan_heuristic(plan))
                bar.update()
    check = ProfileCheck(
        predicted=tuple(choice.loss for choice in choices),
        measured=tuple((total / len(split)).tolist()),
        kept_fraction=tuple(choice.kept for choice in choices),
        is_solved=tuple(choice.is_solved for choice in choices),
        prompts=len(split),
    )
    return replace(profile, check=check)


@dataclass(frozen=True, slots=True, eq=False)
class _Runner:
    """Runs one prompt with one plan after the other.

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
    @torch.inference_mode()
    def of(cls, model: PreTrainedModel, ids: list[int], future: int) -> "_Runner":
        """Read the prompt with the full cache."""
        tokens = torch.tensor([ids], device=input_device(model))
        logits = model(tokens, use_cache=False, logits_to_keep=future).logits[0]
        return cls(model, tokens[:, :-future], tokens[:, -future:], logits)

    @torch.inference_mode()
    def divergence(self, plan: Plan, heuristic: TokenHeuristic) -> float:
        """What the model loses with a plan, nats per future token."""
        with budgeted(self.model, plan, heuristic) as cache:
            self.model(self.context, past_key_values=cache, logits_to_keep=1)
            logits = self.model(self.future, past_key_values=cache).logits[0]
        return float(mean_divergence(self.expected, logits))


def _solved(profile: Profile, count: int, context: int) -> Iterator[_Choice]:
    """The best division of each of so many budgets."""
    for share in _shares(profile, count):
        problem = Problem.from_profile(profile, budget=f"{share:.4%}", context_tokens=context)
        yield _choice(profile, np.asarray(solve(problem, Hull()).levels), True)


def _drawn(profile: Profile, count: int, seed: int) -> Iterator[_Choice]:
    """Levels drawn around shares of the context, log-normally, each cache by itself."""
    draw = np.random.default_rng(seed)
    caches = profile.loss.shape[:2]
    for share in _shares(profile, count):
        wanted = np.clip(share * draw.lognormal(0.0, _SPREAD, caches), 0.0, 1.0)
        yield _choice(profile, np.abs(profile.kept_fraction - wanted[..., None]).argmin(-1), False)


def _shares(profile: Profile, count: int) -> NDArray[np.float64]:
    """Shares of the full cache, evenly spread over what the check looks at."""
    lowest, highest = KEPT
    return np.linspace(max(lowest, float(profile.kept_fraction[0])), highest, count)


def _full(profile: Profile) -> _Choice:
    """Everything kept."""
    last = len(profile.kept_fraction) - 1
    return _choice(profile, np.full(profile.loss.shape[:2], last), False)


def _choice(profile: Profile, levels: Ints, is_solved: bool) -> _Choice:
    levels = levels.reshape(profile.loss.shape[:2])
    loss = float(np.take_along_axis(profile.loss, levels[..., None], -1).sum())
    return _Choice(levels, loss, float(profile.kept_fraction[levels].mean()), is_solved)


def _plan(profile: Profile, choice: _Choice, context: int) -> Plan:
    """A plan that cuts a context of this length to the chosen levels."""
    geometry = profile.geometry
    menu = geometry.capacity_tokens(profile.kept_fraction, context)
    capacity = np.take_along_axis(menu, choice.levels[..., None], -1)[..., 0]
    return Plan(
        capacity_tokens=capacity,
        context_tokens=context,
        batch_size=1,
        budget_bytes=int(capacity.sum()) * geometry.bytes_per_token,
        certificate=Certificate("check_profile", "FEASIBLE", choice.loss, 0.0, 1.0),
        geometry=geometry,
        model=profile.model,
        heuristic=profile.heuristic,
        heuristic_settings=profile.heuristic_settings,
        measure=profile.measure,
    )
