"""Every line that touches the cache and attention interfaces of transformers.

A cache layer's `update` sees keys and values but no queries; the attention function sees queries,
keys and values but not the cache. The two are joined by a handoff: `update` returns the new
tensors tagged with their layer, and the registered attention function recognises the tag. A model
that rewrites keys or values in between, or never calls the registered function, is found out at
its first forward and refused.
"""

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kvbudget.allocator import Plan, UnsupportedModel, format_bytes
from kvbudget.heuristics import Rotation, TokenHeuristic

from .attention_call import AttentionCall, LogitRules, dense_attention
from .budgeted_layer import BudgetedLayer
from .layer_stack import LayerStack
from .switched import SwitchedModels

ATTENTION_NAME = "kvbudget"
_TAG = "_kvbudget_layer"
# keywords of attention calls that do not change the result of a plain causal decoder
_HARMLESS = frozenset(
    "is_causal position_ids use_cache output_attentions output_hidden_states output_router_logits "
    "cache_position num_items_in_batch layer_idx is_first_iteration logits_to_keep return_dict "
    "token_type_ids inputs_embeds".split()
)


class _Handoff(threading.local):
    """The layer whose `update` has not been followed by its attention call yet."""

    waiting: "_TaggingLayer | None" = None


_HANDOFF = _Handoff()


class _TaggingLayer(CacheLayerMixin):
    """A cache layer that hands its new tokens to the registered attention function."""

    is_sliding = False  # masks are sized by all columns seen, whatever is kept
    is_compileable = False
    is_croppable = True

    def __init__(self, index: int, window: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.index, self.window = index, window

    @abstractmethod
    def admit(self, keys: Tensor, values: Tensor) -> None:
        """Take note of new tokens before they attend."""

    @abstractmethod
    def attend(self, call: AttentionCall) -> Tensor:
        """Attention output, [batch, new, heads, value_dim]."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Remember type and place of the tokens."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Admit new tokens and return them, tagged, for the attention call that follows."""
        self.lazy_initialization(key_states, value_states)
        stranded, _HANDOFF.waiting = _HANDOFF.waiting, None
        if stranded is not None:
            raise UnsupportedModel(
                f"Layer {stranded.index}: its keys never reached the attention function of "
                f"kvbudget. Use the cache inside `with budgeted(...)`, on its own model."
            )
        # a model may pass one object as both: each needs a tag of its own
        values = value_states.clone() if value_states is key_states else value_states
        self.admit(key_states, values)
        for tensor in (key_states, values):
            setattr(tensor, _TAG, self)
        _HANDOFF.waiting = self
        return key_states, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns and offset of the mask: all columns seen, kept or not."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit on the columns."""
        return -1


class BudgetedCacheLayer(_TaggingLayer):
    """The layer of a `BudgetedCache`; all its state is in `layer`."""

    def __init__(self, layer: BudgetedLayer) -> None:
        super().__init__(layer.index, layer.window)
        self.layer = layer

    def admit(self, keys: Tensor, values: Tensor) -> None:
        """Take note of new tokens; decoded ones go into the tail."""
        geometry = self.layer.room.plan.geometry
        if keys.shape[1] != geometry.kv_heads or keys.shape[3] != geometry.head_dim:
            raise UnsupportedModel(
                f"Layer {self.index} brings {keys.shape[1]} KV heads of size {keys.shape[3]}, but "
                f"the plan was made for {geometry}."
            )
        self.layer.admit(keys, values)

    def attend(self, call: AttentionCall) -> Tensor:
        """Dense attention for the prompt, which is then cut; ragged attention afterwards."""
        if self.layer.store is not None:
            return self.layer.attend(call)
        output = ordinary_attention(call)
        self.layer.absorb_prompt(call)
        return output

    def get_seq_length(self) -> int:
        """Columns seen, kept or not: positions are counted from it."""
        return self.layer.seen_tokens

    def reset(self) -> None:
        """Forget everything."""
        self.layer.reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams."""
        self.layer.select_rows(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch."""
        self.layer.select_rows(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row of the batch."""
        if self.layer.store is not None:
            rows = torch.arange(self.layer.store.batch).repeat_interleave(repeats)
            self.layer.select_rows(rows)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest tokens; transformers passes their number as a negative one."""
        if tokens_to_remove > 0:
            raise ValueError(
                f"`tokens_to_remove` must be 0 or negative, but got {tokens_to_remove}."
            )
        self.layer.crop(-tokens_to_remove)


class BudgetedCache(Cache):
    """A KV cache that holds no more bytes than its plan.

    Pass it to `model.generate(..., past_key_values=cache)` or to the model's forward.

    Args:
        plan: Capacities per layer and KV head.
        heuristic: Scores the tokens whenever some have to go.
        rotations: How each layer rotates queries and keys; nothing known by default.
    """

    def __init__(
        self,
        plan: Plan,
        heuristic: TokenHeuristic,
        rotations: Sequence[Rotation | None] | None = None,
    ) -> None:
        self.plan, self.stack = plan, LayerStack(plan, heuristic, rotations)
        super().__init__(layers=[BudgetedCacheLayer(layer) for layer in self.stack.layers])

    def __repr__(self) -> str:
        """Bytes held and allowed, and tokens read."""
        held, allowed = format_bytes(self.nbytes()), format_bytes(self.plan.budget_bytes)
        return f"BudgetedCache({self.get_seq_length()} tokens read, {held} of {allowed} held)"

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Take note of new tokens of one layer; at the first layer all of them get ready.

        Raises:
            KVBudgetError: The last forward broke off half-way.
        """
        if layer_idx == 0:
            self.stack.expect(len(key_states), key_states.shape[2])
        tokens: tuple[Tensor, Tensor] = super().update(
            key_states, value_states, layer_idx, *args, **kwargs
        )
        return tokens

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row of the batch, within the budget."""
        self.stack.shrink_to(self.stack.rows * repeats, self.get_seq_length())
        super().batch_repeat_interleave(repeats)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Follow the beams, within the budget."""
        self.stack.shrink_to(beam_idx.numel(), self.get_seq_length())
        super().reorder_cache(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch, within the budget."""
        self.stack.shrink_to(indices.numel(), self.get_seq_length())
        super().batch_select_indices(indices)

    def nbytes(self, overhead: bool = False) -> int:
        """Bytes of the live K and V storages, read from the storages themselves.

        Args:
            overhead: Count positions, offsets, and what is remembered for the heuristic.
        """
        return self.stack.nbytes(overhead)

    def kept_positions(self, layer: int) -> list[list[Tensor]]:
        """Columns that one layer holds now, padding columns counted.

        Returns:
            For each sequence and KV head the sorted original columns, int64: `[batch][kv_heads]`.
        """
        return self.stack.kept_positions(layer)


Attend = Callable[[int, AttentionCall], Tensor]


class _DelegatingLayer(_TaggingLayer):
    """Keeps nothing; leaves each attention call to a function, which returns the output."""

    def __init__(self, index: int, window: int | None, columns: int, attend: Attend) -> None:
        super().__init__(index, window)
        self._columns, self._attend = columns, attend

    def admit(self, keys: Tensor, values: Tensor) -> None:
        """Nothing is kept."""

    def attend(self, call: AttentionCall) -> Tensor:
        """Whatever the function makes of the call."""
        return self._attend(self.index, call)

    def get_seq_length(self) -> int:
        """Columns that stand before every call."""
        return self._columns


def delegating_cache(windows: tuple[int | None, ...], attend: Attend, columns: int = 0) -> Cache:
    """A cache that keeps nothing and leaves the attention of every layer to `attend`.

    Args:
        windows: Sliding window of every layer, None for full attention.
        attend: Gets the layer and its call, and returns [batch, new, heads, value_dim].
        columns: Tokens that count as read before; `attend` knows them.
    """
    each = enumerate(windows)
    return Cache([_DelegatingLayer(index, window, columns, attend) for index, window in each])


def layer_windows(config: PreTrainedConfig) -> tuple[int | None, ...]:
    """Sliding window of every layer, None for full attention.

    Raises:
        UnsupportedModel: A layer keeps something other than plain keys and values.
    """
    layers = DynamicCache(config=config).layers
    for index, layer in enumerate(layers):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise UnsupportedModel(
                f"Layer {index} of {config.model_type} keeps a {type(layer).__name__}, "
                f"which kvbudget cannot cut exactly."
            )
    return tuple(getattr(layer, "sliding_window", None) for layer in layers)


_SWITCHED = SwitchedModels(ATTENTION_NAME)


@contextmanager
def attention_switched(model: PreTrainedModel) -> Iterator[None]:
    """Send the model's attention through kvbudget, and put everything back afterwards."""
    AttentionInterface.register(ATTENTION_NAME, _attention)
    # always the ordinary mask: a special one would silently break other caches used meanwhile
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    _HANDOFF.waiting = None
    _SWITCHED.enter(model)
    try:
        yield
    finally:
        _SWITCHED.leave(model)
        _HANDOFF.waiting = None


def check_handed_over() -> None:
    """Raise if the last layer's tokens never reached the attention function.

    Raises:
        UnsupportedModel: The model does not use the attention interface.
    """
    stranded, _HANDOFF.waiting = _HANDOFF.waiting, None
    if stranded is not None:
        raise UnsupportedModel(
            f"Layer {stranded.index}: its keys never reached the attention function of kvbudget."
        )


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """The registered attention function; transformers fixes its signature."""
    layer = _layer_of(module, key, value)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rules = LogitRules(scale, softcap, s_aux)
    call = AttentionCall(module, query, key, value, attention_mask, rules)
    _check_keywords(module, dropout, extra)
    if layer is None:
        return ordinary_attention(call), None
    _check_call(module, layer, call, sliding_window)
    return layer.attend(call), None


def _layer_of(module: nn.Module, key: Tensor, value: Tensor) -> _TaggingLayer | None:
    waiting, _HANDOFF.waiting = _HANDOFF.waiting, None
    key_layer, value_layer = getattr(key, _TAG, None), getattr(value, _TAG, None)
    if key_layer is None and value_layer is None and waiting is None:
        return None
    if key_layer is None or key_layer is not value_layer or key_layer is not waiting:
        index = waiting.index if waiting is not None else "?"
        raise UnsupportedModel(
            f"{type(module).__name__}, layer {index}: keys or values are rewritten between the "
            f"cache and the attention, so they cannot be cut per KV head."
        )
    return cast(_TaggingLayer, key_layer)


def _check_keywords(module: nn.Module, dropout: float, extra: dict[str, Any]) -> None:
    used = sorted(key for key, value in extra.items() if value is not None)
    unknown = [key for key in used if key not in _HARMLESS]
    if unknown:
        raise UnsupportedModel(
            f"{type(module).__name__}: the attention uses {', '.join(unknown)}, which kvbudget "
            f"does not know."
        )
    if dropout:
        raise ValueError(
            f"{type(module).__name__}: attention dropout is on. Call model.eval() first."
        )


def _check_call(
    module: nn.Module, layer: _TaggingLayer, call: AttentionCall, window: int | None
) -> None:
    name = f"{type(module).__name__}, layer {layer.index}"
    if window is not None and window != layer.window:
        raise UnsupportedModel(
            f"{name}: a window of {window} tokens at the call, but {layer.window} in the cache."
        )
    if call.mask is not None and (call.mask.dim() != 4 or call.mask.shape[1] != 1):
        raise UnsupportedModel(f"{name}: the attention mask differs between heads.")


def ordinary_attention(call: AttentionCall) -> Tensor:
    """Attention over the call's own keys as transformers computes it: [batch, new, heads, dim]."""
    rules = call.rules
    if rules.softcap is not None or rules.sinks is not None:
        return dense_attention(call)
    output, _ = sdpa_attention_forward(
        call.module, call.queries, call.keys, call.values, call.mask, scaling=rules.scaling
    )
    return output
