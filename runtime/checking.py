"""Do the losses of a profile add up to what plans really lose? Run some and see."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kvbudget.allocator import Plan, Problem, Profile, ProfileCheck, solve
from kvbudget.allocator.settings import call_text
from kvbudget.allocator.solvers import Hull
from kvbudget.heuristics import TokenHeuristic, check_kind, measures, name_of, settings_of

from .evaluating import evaluating
from .plan_trial import LEAST_FUTURE_TOKENS, PlanTrial, trial_plan
from .prompts import Prompt, future_length, prompt_ids
from .session import check_same_model, geometry_of, named_heuristic

PLANS = 60
KEPT = (0.05, 0.6)
_SPREAD = 0.7

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Choice:
    """A level for every cache, and what that is predicted to lose.

    Args:
        levels: [caches].
        loss: Sum over the caches.
        kept: Share of the full cache that is kept.
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
    prompt, or more where the heuristic lets the model read twice. Use prompts that the profile was
    not measured on, a dozen if the loss of plans that lose little is to be believed, too.

    Args:
        model: The model of the profile.
        profile: Losses to check.
        prompts: Texts or token ids, each a context and what follows it.
        tokenizer: Needed for texts.
        heuristic: Chooses the tokens to keep; the one the profile was measured for by default.
        plans: How many to run, at least 2.
        future_tokens: Last tokens of each prompt that ask, at least 2; as in `measure_profile` by
            default.
        seed: Of the plans that are drawn.
        progress: Show a progress bar with the time left on stderr.

    Returns:
        The profile with the outcome as its `check`, which every plan made from it then shows.

    Raises:
        WrongModel: The profile was made for another model.
        UnsupportedModel: The model's caches cannot be cut exactly.
        TypeError: What should be a profile is none, for example a plan.
        ValueError: Profile, prompts, plans or future tokens cannot be used; says which.
    """
    if plans < 2:
        raise ValueError(f"`plans` must be at least 2, but got plans={plans}.")
    if not isinstance(profile, Profile):
        raise TypeError(
            f"`profile` must be a Profile, but got a {type(profile).__name__}. "
            f"Pass the profile that the plan was made from."
        )
    if len(profile.kept_fraction) < 2:
        raise ValueError("`profile` must have at least 2 levels to choose from, but has 1.")
    found = prompt_ids(model, prompts, tokenizer)
    contexts = [len(ids) - future_length(ids, future_tokens, LEAST_FUTURE_TOKENS) for ids in found]
    menu = _Menu(profile, max(contexts))
    check_same_model(menu.plan(menu.choice(menu.most, False)), geometry_of(model))
    choosing, its_name = _heuristic(profile, heuristic)
    choices = [*menu.solved(plans - plans // 2), *menu.drawn(plans // 2, seed)]
    total = np.zeros(len(choices))
    with (
        evaluating(model),
        tqdm(
            total=len(choices) * len(found), desc="checking", unit="run", disable=not progress
        ) as bar,
    ):
        for ids, context in zip(found, contexts, strict=True):
            trial, menu = PlanTrial.of(model, ids, future_tokens), _Menu(profile, context)
            for index, choice in enumerate(choices):
                total[index] += trial.divergence(menu.plan(choice), choosing)
                bar.update()
    check = ProfileCheck(
        predicted=tuple(choice.loss for choice in choices),
        measured=tuple((total / len(found)).tolist()),
        kept_fraction=tuple(choice.kept for choice in choices),
        is_solved=tuple(choice.is_solved for choice in choices),
        prompts=len(found),
        in_nats=profile.measure in measures.names() and measures.get(profile.measure).in_nats,
        heuristic=its_name,
    )
    return replace(profile, check=check)


@dataclass(frozen=True, slots=True)
class _Menu:
    """The levels of a profile for contexts of one length.

    Args:
        profile: The losses.
        context: Tokens of the context.
    """

    profile: Profile
    context: int

    @property
    def capacity(self) -> Ints:
        """Tokens each cache keeps at each level, [caches, levels]."""
        geometry = self.profile.geometry
        tokens = geometry.capacity_tokens(self.profile.kept_fraction, self.context)
        return tokens[geometry.present]

    @property
    def stored_bytes(self) -> Ints:
        """Bytes each cache takes at each level, [caches, levels]."""
        geometry = self.profile.geometry
        return self.capacity * geometry.token_bytes[geometry.present][:, None]

    @property
    def most(self) -> Ints:
        """The level that keeps everything, for every cache, [caches]."""
        return np.full(self.profile.geometry.caches, self.profile.loss.shape[2] - 1)

    def shares(self, count: int) -> NDArray[np.float64]:
        """Shares of the full cache, evenly spread over what the check looks at."""
        least = self.stored_bytes[:, 0].sum() / self.stored_bytes[:, -1].sum()
        lowest, highest = (max(float(least), share) for share in KEPT)
        return np.linspace(lowest, highest, count)

    def solved(self, count: int) -> Iterator[_Choice]:
        """The best division of each of so many budgets."""
        least, whole = (int(self.stored_bytes[:, level].sum()) for level in (0, -1))
        for share in self.shares(count):
            problem = Problem.from_profile(
                self.profile,
                budget=max(least, int(share * whole)),
                context_tokens=self.context,
            )
            yield self.choice(np.asarray(solve(problem, Hull()).levels), True)

    def drawn(self, count: int, seed: int) -> Iterator[_Choice]:
        """Levels drawn around shares of what a cache can hold, log-normally, each by itself."""
        draw = np.random.default_rng(seed)
        fraction = self.capacity / self.capacity[:, -1:]
        for share in self.shares(count):
            wanted = np.clip(share * draw.lognormal(0.0, _SPREAD, len(fraction)), 0.0, 1.0)
            yield self.choice(np.abs(fraction - wanted[..., None]).argmin(-1), False)

    def choice(self, levels: Ints, is_solved: bool) -> _Choice:
        """What a choice of levels is predicted to lose."""
        at, stored = levels[:, None], self.stored_bytes
        losses = self.profile.loss[self.profile.geometry.present]
        loss = float(np.take_along_axis(losses, at, -1).sum())
        kept = np.take_along_axis(stored, at, -1).sum() / stored[:, -1].sum()
        return _Choice(levels, loss, float(kept), is_solved)

    def plan(self, choice: _Choice) -> Plan:
        """A plan that cuts the context to the chosen levels."""
        capacity = np.take_along_axis(self.capacity, choice.levels[:, None], -1)[:, 0]
        geometry = self.profile.geometry
        return trial_plan(geometry.on_grid(capacity), self.context, geometry)


def _heuristic(profile: Profile, given: TokenHeuristic | None) -> tuple[TokenHeuristic, str]:
    """What chooses the tokens, and its name if it is not what the profile was measured for."""
    if given is not None:
        check_kind(given, TokenHeuristic)
        name, settings = name_of(given), settings_of(given)
        same = (name, settings) == (profile.heuristic, profile.heuristic_settings)
        return given, "" if same else call_text(name, settings)
    remedy = "Pass one: check_profile(..., heuristic=heuristics.ObservationWindow())."
    return named_heuristic(profile, remedy), ""
