"""The caches that decode against each other, filled without the attention of a prompt.

A prompt of 32,768 tokens would take this model minutes on a CPU. What a decoded token costs
depends on how many keys and values are held, not on which: so all caches are given random ones,
layer by layer, the way a prompt would bring them, and the budgeted cache cuts its layers as it
would after a prompt. Everything from the first decoded token on is the ordinary forward.
"""

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from kvbudget.runtime import BudgetedCache
from kvbudget.runtime.attention_call import AttentionCall, LogitRules

from .case import HEAD_DIM, KV_HEADS, LAYERS, Case


class InPlaceLayer(CacheLayerMixin):
    """Keeps everything in memory set aside beforehand and copies nothing: the strongest opponent.

    Args:
        tokens: Most tokens it can hold.
    """

    is_sliding = False
    is_compileable = False
    is_croppable = False

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self._room, self._seen = tokens, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Set memory aside."""
        shape = (*key_states.shape[:2], self._room, key_states.shape[3])
        self.keys, self.values = key_states.new_empty(shape), value_states.new_empty(shape)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind the others and return views of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        first, self._seen = self._seen, self._seen + key_states.shape[2]
        self.keys[:, :, first : self._seen] = key_states
        self.values[:, :, first : self._seen] = value_states
        return self.keys[:, :, : self._seen], self.values[:, :, : self._seen]

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self._seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns and offset of the mask."""
        return self._seen + query_length, 0

    def get_max_length(self) -> int:
        """Most tokens it can hold."""
        return self._room


def random_tokens(case: Case, tokens: int) -> tuple[Tensor, Tensor]:
    """Keys and values of one layer, [1, kv_heads, tokens, head_dim] each."""
    shape = (1, KV_HEADS, tokens, HEAD_DIM)
    return torch.randn(shape), torch.randn(shape)


def fill(cache: Cache, case: Case) -> None:
    """Give one of transformers' caches a context of random keys and values."""
    for layer in range(LAYERS):
        cache.update(*random_tokens(case, case.context_tokens), layer)


def fill_budgeted(cache: BudgetedCache, case: Case, module: nn.Module) -> None:
    """Do the same for ours, which cuts every layer to its capacities at once.

    Args:
        cache: An empty one.
        case: Tells the context.
        module: Passes for the attention module that read the prompt.
    """
    rules = LogitRules(HEAD_DIM**-0.5)
    cache.stack.expect(1, case.context_tokens)
    for layer in cache.stack.layers:
        keys, values = random_tokens(case, case.context_tokens)
        queries = keys.repeat_interleave(case.group, 1)
        layer.admit(keys, values)
        layer.absorb_prompt(AttentionCall(module, queries, keys, values, None, rules))
