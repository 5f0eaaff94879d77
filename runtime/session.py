"""What a user touches: run a model inside a plan."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from kvbudget import heuristics
from kvbudget.allocator import Geometry, Plan, Profile, UnsupportedModel, WrongModel
from kvbudget.heuristics import TokenHeuristic

from .anatomy import anatomy_of
from .hf import BudgetedCache, attention_switched, refuse_stranded, text_layout
from .rereading import prompts_reread
from .rotations import layer_rotations


def geometry_of(model: PreTrainedModel) -> Geometry:
    """Read the shape of a model's KV caches.

    Raises:
        UnsupportedModel: The model's caches cannot be cut exactly; says which and why.
    """
    anatomy = anatomy_of(model)
    first, *others = anatomy.layers
    shape = (first.kv_heads, first.head_dim, first.value_dim)
    for each in others:
        if (each.kv_heads, each.head_dim, each.value_dim) != shape:
            raise UnsupportedModel(
                f"{type(model).__name__} is not supported: its layers have caches of unequal shape."
            )
    return Geometry(
        architecture=type(model).__name__,
        layers=len(anatomy.layers),
        kv_heads=first.kv_heads,
        head_dim=first.head_dim,
        value_dim=first.value_dim,
        dtype=str(anatomy.dtype).removeprefix("torch."),
        windows=tuple(each.cached.window for each in anatomy.layers),
    )


@contextmanager
def budgeted(
    model: PreTrainedModel, plan: Plan, heuristic: TokenHeuristic | None = None
) -> Iterator[BudgetedCache]:
    """Run a model with caches of exactly the plan's sizes.

    While everything read so far fits the budget, nothing is evicted; from then on every cache
    holds at most its capacity. A prompt is cut layer by layer, so the peak is the budget and the
    keys and values of one layer. Capacities hold for every sequence of a batch. While decoding, new
    tokens take their places out of the capacities, several at a time: just after an eviction a
    cache may hold as little as half its capacity of older tokens.

        with kvbudget.budgeted(model, plan) as cache:
            output = model.generate(**inputs, past_key_values=cache)

    Args:
        model: A causal LM of a supported family, in evaluation mode.
        plan: Capacities made for this model.
        heuristic: Chooses the tokens to keep; the one the plan was made for by default.

    Yields:
        The cache. `cache.nbytes()` reads its live storages, `cache.kept_positions(layer)` tells
        which columns it holds. A second turn passes the whole conversation so far; an unrelated
        prompt needs `cache.reset()` first.

    Raises:
        WrongModel: The plan was made for another model.
        UnsupportedModel: The model's caches cannot be cut exactly.
        TypeError: The heuristic is none, for example a class instead of an instance.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"`plan` must be a Plan, but got {plan!r:.80}. Read one with Plan.load.")
    check_same_model(plan, geometry_of(model))
    remedy = "Pass one: budgeted(model, plan, heuristics.ObservationWindow())."
    chosen = named_heuristic(plan, remedy) if heuristic is None else heuristic
    heuristics.check_kind(chosen, TokenHeuristic)
    cache = BudgetedCache(plan, chosen, text_layout(model), layer_rotations(model))
    with attention_switched(model), prompts_reread(model, cache, chosen):
        yield cache
        refuse_stranded()
    if not cache.stack.was_used:
        warnings.warn(
            "The budgeted cache was never used, so the model ran with its full cache. "
            "Pass it on: model.generate(..., past_key_values=cache).",
            stacklevel=3,
        )


def named_heuristic(source: Plan | Profile, remedy: str) -> TokenHeuristic:
    """Build the token heuristic that a plan's or a profile's losses were measured for.

    Args:
        source: Who names it.
        remedy: What to do if it names none that can be built.

    Raises:
        ValueError: The name is missing, unknown, or not that of a token heuristic.
    """
    what, name = type(source).__name__.lower(), source.heuristic
    if not name:
        raise ValueError(f"The {what} names no token heuristic. {remedy}")
    if name not in heuristics.names():
        raise ValueError(
            f"The {what} uses the heuristic {name!r}, which is not registered in this program and "
            f"which no installed package declares. Import the module that registers it. {remedy}"
        )
    named = heuristics.build(name, source.heuristic_settings)
    if not isinstance(named, TokenHeuristic):
        raise ValueError(
            f"The {what} was made from {name!r}, which scores whole caches, not tokens. {remedy}"
        )
    return named


def check_same_model(plan: Plan, geometry: Geometry) -> None:
    """Refuse a plan whose bytes or shape are not this model's.

    Raises:
        WrongModel: Says what the plan was made for and what the model is.
    """
    if plan.geometry == geometry:
        return
    remedy = "Make a plan for this model."
    if plan.geometry.with_dtype(geometry.dtype) == geometry:
        remedy = f'Make the plan from profile.with_dtype("{geometry.dtype}").'
    raise WrongModel(f"Plan was made for {plan.geometry}, but the model is {geometry}. {remedy}")
