"""The operators that stand in a compiled graph for what a budgeted cache does.

A graph holds no Python object, so it names its cache by a number. The operators do the ordinary
work on the host; that of all layers but the first can be recorded in a CUDA graph, as far as a
token was counted ahead.
"""

from threading import Lock
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from kvbudget.allocator import KVBudgetError

from ..attention_call import AttentionCall, LogitRules

# a graph is compiled anew for the numbers 0 and 1
_FIRST_NUMBER = 2
_NO_MODULE = nn.Module()


class GraphCaller(Protocol):
    """What the operators of one number reach."""

    def attend(self, layer: int, call: AttentionCall, window: int | None) -> Tensor:
        """Take note of new tokens of a layer and let them attend, [batch, new, heads, dim]."""

    def column(self, like: Tensor) -> Tensor:
        """Column of the first new token, int64."""


_CALLERS: WeakValueDictionary[int, GraphCaller] = WeakValueDictionary()
_SPENT: set[int] = set()
_LOCK = Lock()


def number_for(caller: GraphCaller) -> int:
    """A number by which graphs find the caller as long as it lives.

    The lowest that is free: a graph compiled for one cache then serves the next one too.
    """
    every = range(_FIRST_NUMBER, 2**31)
    with _LOCK:
        number = next(each for each in every if each not in _CALLERS and each not in _SPENT)
        _CALLERS[number] = caller
    return number


def spend(number: int) -> None:
    """What was recorded under this number is void, so nobody gets it again."""
    _SPENT.add(number)
    _CALLERS.pop(number, None)


def _caller(number: int) -> GraphCaller:
    caller = _CALLERS.get(number)
    if caller is None:
        raise KVBudgetError(
            "A compiled graph looks for a budgeted cache that is gone: call the compiled model "
            "inside its `with budgeted(...)`."
        )
    return caller


def _attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    sinks: Tensor | None,
    slopes: Tensor | None,
    number: int,
    layer: int,
    scaling: float,
    softcap: float | None,
    window: int | None,
) -> Tensor:
    rules = LogitRules(scaling, softcap, sinks, slopes)
    call = AttentionCall(_NO_MODULE, queries, keys, values, mask, rules)
    return _caller(number).attend(layer, call, window)


def _attended_like(queries: Tensor, keys: Tensor, values: Tensor, *_: object) -> Tensor:
    batch, heads, new = queries.shape[:3]
    return queries.new_empty(batch, new, heads, values.shape[3])


def _remember_queries(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _refuse_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.kvbudget.refused_backward(grad, *ctx.saved_tensors), *[None] * 10


_UNSAFE = (torch.Tag.cudagraph_unsafe,)
update_and_attend = torch.library.custom_op(
    "kvbudget::update_and_attend", _attend, mutates_args=(), tags=_UNSAFE
)
"""New tokens of a layer go into the cache and attend: [batch, new, heads, value_dim]."""
update_and_attend_recorded = torch.library.custom_op(
    "kvbudget::update_and_attend_recorded", _attend, mutates_args=()
)
"""The same for a layer behind the first: what the device does may be recorded and replayed."""

for _each in (update_and_attend, update_and_attend_recorded):
    _each.register_fake(_attended_like)
    _each.register_autograd(_refuse_backward, setup_context=_remember_queries)


def attention_in_graph(number: int, layer: int, call: AttentionCall, window: int | None) -> Tensor:
    """Let a graph take note of new tokens of a layer, and let them attend.

    Args:
        number: Whose layer it is.
        layer: Its index.
        call: The new tokens.
        window: Sliding window at the call, if it tells one.

    Returns:
        [batch, new, heads, value_dim].
    """
    rules, is_later = call.rules, layer > 0 and call.queries.shape[2] == 1
    attend = update_and_attend_recorded if is_later else update_and_attend
    output: Tensor = attend(
        call.queries,
        call.keys,
        call.values,
        None if is_later else call.mask,  # decoded tokens share one, so one layer looks at it
        rules.sinks,
        rules.slopes,
        number,
        layer,
        rules.scaling,
        rules.softcap,
        window,
    )
    return output


@torch.library.custom_op("kvbudget::first_column", mutates_args=(), tags=_UNSAFE)
def first_column(like: Tensor, number: int) -> Tensor:
    """Column of the first new token, int64, where `like` is."""
    return _caller(number).column(like)


@first_column.register_fake
def _(like: Tensor, number: int) -> Tensor:
    return like.new_empty((), dtype=torch.int64)


@torch.library.custom_op("kvbudget::refused_backward", mutates_args=())
def refused_backward(grad: Tensor, queries: Tensor) -> Tensor:
    """Fails when a gradient reaches it, not when its graph is made."""
    raise RuntimeError(
        "A forward with a budgeted cache must not be differentiated: evicted tokens have no "
        "gradient. Train without a budgeted cache."
    )


@refused_backward.register_fake
def _(grad: Tensor, queries: Tensor) -> Tensor:
    return torch.empty_like(queries)
