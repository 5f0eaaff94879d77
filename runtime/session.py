"""What a user touches: run a model inside a plan."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from kvbudget import heuristics
from kvbudget.allocator import CacheShape, Geometry, Plan, Profile, WrongModel
from kvbudget.heuristics import TokenHeuristic

from .adaptation import Adaptation
from .adaptation.adaptable import check_adaptable
from .anatomy import anatomy_of
from .hf import BudgetedCache, attention_switched, cache_served
from .rereading import prompts_reread
from .rotations import layer_rotations


def geometry_of(model: PreTrainedModel) -> Geometry:
    """Read the shape of a model's KV caches.

    Raises:
        UnsupportedModel: The model's caches cannot be cut exactly; says which and why.
    """
    anatomy = anatomy_of(model)
    return Geometry.of_layers(
        type(model).__name__,
        [
            CacheShape(anatomy.split.whole(each.kv_heads), each.head_dim, each.value_dim)
            for each in anatomy.layers
        ],
        str(anatomy.dtype).removeprefix("torch."),
        tuple(each.cached.window for each in anatomy.layers),
    )


@contextmanager
def budgeted(
    model: PreTrainedModel,
    plan: Plan,
    heuristic: TokenHeuristic | None = None,
    adapt: Adaptation | None = None,
) -> Iterator[BudgetedCache]:
    """Run a model with caches of exactly the plan's sizes.

    While everything read so far fits the budget, nothing is evicted; from then on every cache
    holds at most its capacity. A prompt is cut layer by layer, so the peak is the budget and the
    keys and values of one layer. Capacities hold for every sequence of a batch. While decoding, new
    tokens take their places out of the capacities, several at a time: just after an eviction a
    cache may hold as little as half its capacity of older tokens.

        with kvbudget.budgeted(model, plan) as cache:
            output = model.generate(**inputs)

    A `generate` that is given no cache gets this one, emptied first, wherever it is called: in a
    pipeline, say. To keep a conversation pass it on with `past_key_values=cache`. A cache of your
    own is left alone, and so is a forward without any: `model(ids)` reads with the full cache.
    A model serves one plan at a time, and a cache one forward at a time.

    Args:
        model: A causal LM of a supported family, in evaluation mode.
        plan: Capacities made for this model.
        heuristic: Chooses the tokens to keep; the one the plan was made for by default.
        adapt: Divides the same bytes anew for each prompt once it has been read: `WithinLayer()`
            over the heads of each layer, `Global()` over all caches, for which every layer keeps
            its prompt whole until the last one has read it. None keeps the plan's capacities. A
            prompt that fits the budget is divided when the conversation no longer does.

    Yields:
        The cache. `cache.nbytes()` reads its live storages, `cache.kept_positions(layer)` tells
        which columns it holds. A second turn passes the whole conversation so far; an unrelated
        prompt needs `cache.reset()` first.

    Raises:
        WrongModel: The plan was made for another model.
        UnsupportedModel: The model's caches cannot be cut exactly.
        KVBudgetError: The model is in such a context already.
        TypeError: The model is none, for example a compiled one, or the heuristic or the
            adaptation is none, for example a class instead of an instance.
        ValueError: The plan was made with limits that an adaptation would not keep.
    """
    geometry = geometry_of(model)
    if not isinstance(plan, Plan):
        raise TypeError(
            f"`plan` must be a Plan, but got a {type(plan).__name__}. Make one with allocate, or "
            f"read one with Plan.load."
        )
    check_same_model(plan, geometry)
    remedy = "Pass one: budgeted(model, plan, heuristics.ObservationWindow())."
    chosen = named_heuristic(plan, remedy) if heuristic is None else heuristic
    heuristics.check_kind(chosen, TokenHeuristic)
    if adapt is not None:
        check_adaptable(plan, adapt)
    anatomy = anatomy_of(model)
    cache = BudgetedCache(
        plan,
        chosen,
        anatomy.layout,
        layer_rotations(model),
        [layer.device for layer in anatomy.layers],
        adapt,
        anatomy.split,
    )
    cache.stack.borrow([model.get_submodule(layer.path) for layer in anatomy.layers])
    with (
        attention_switched(model),
        cache_served(model, cache),
        prompts_reread(model, chosen),
    ):
        yield cache
    if not cache.stack.was_used:
        warnings.warn(
            "The budgeted cache was never used, so the model ran with its full cache: call "
            "model.generate(...) without a cache of your own inside the context, or pass it on "
            "with past_key_values=cache.",
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
