"""The layers of a budgeted cache, as transformers sees them."""

import torch
from torch import Tensor

from kvbudget.allocator import UnsupportedModel, WrongModel
from kvbudget.allocator.checks import as_int

from ..attention_call import AttentionCall
from ..budgeted_layer import BudgetedLayer
from ..cached_layer import CachedLayer
from ..rewritten_layer import RewrittenLayer
from .attention import ordinary_attention
from .handoff import TaggingLayer
from .states import StateKeeper


class BudgetedCacheLayer(TaggingLayer):
    """The layer of a `BudgetedCache`; all its state is in `layer`."""

    def __init__(self, layer: BudgetedLayer, cached: CachedLayer) -> None:
        TaggingLayer.__init__(self, cached)
        self.layer = layer

    def admit(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take note of new tokens; decoded ones go into the tail."""
        self.check_tokens(keys, values)
        self.layer.admit(keys, values)
        return keys, values

    def check_tokens(self, keys: Tensor, values: Tensor) -> None:
        """Refuse tokens of another shape or type than the layer's.

        Raises:
            UnsupportedModel: The plan was made for others.
            WrongModel: The cache holds others.
        """
        geometry = self.layer.room.plan.geometry
        shape = geometry.shape_of(self.index)
        if keys.shape[1] != shape.kv_heads or keys.shape[3] != shape.head_dim:
            raise UnsupportedModel(
                f"Layer {self.number} brings {keys.shape[1]} KV heads of size {keys.shape[3]}, but "
                f"the plan was made for {geometry}."
            )
        store = self.layer.store
        if keys.dtype != values.dtype:
            raise WrongModel(
                f"Layer {self.number} brings {keys.dtype} keys and {values.dtype} values, but both "
                f"must have one type. Leave torch.autocast, and load the model with dtype= instead."
            )
        if store is not None and store.keys.dtype != keys.dtype:
            raise WrongModel(
                f"Layer {self.number} brings {keys.dtype} keys now, but the cache holds "
                f"{store.keys.dtype}. Call cache.reset() and take a plan of the new type, from "
                f"profile.with_dtype."
            )

    def attend(self, call: AttentionCall) -> Tensor:
        """Dense attention for the prompt, which is then cut; ragged attention afterwards."""
        if not self.layer.reads_prompt:
            return self.layer.attend(call)
        output = ordinary_attention(call)
        self.layer.absorb_prompt(call)
        return output

    def attend_again(self, call: AttentionCall) -> Tensor:
        """The same for another layer of the model that reads these keys and values."""
        if not self.layer.reads_prompt:
            return self.layer.attend_again(call)
        return ordinary_attention(call)

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
        tokens_to_remove = as_int("tokens_to_remove", tokens_to_remove)
        if tokens_to_remove > 0:
            raise ValueError(
                f"`tokens_to_remove` must be 0 or negative, but got {tokens_to_remove}."
            )
        self.layer.crop(-tokens_to_remove)


class HybridCacheLayer(StateKeeper, BudgetedCacheLayer):  # type: ignore[misc, override]
    """The layer of a `BudgetedCache` that keeps states as well."""

    def __init__(self, layer: BudgetedLayer, cached: CachedLayer) -> None:
        StateKeeper.__init__(self, number_of_states=cached.states)
        BudgetedCacheLayer.__init__(self, layer, cached)


class RewrittenCacheLayer(BudgetedCacheLayer):
    """The layer of a `BudgetedCache` whose keys and values the model rewrites."""

    layer: RewrittenLayer

    def admit(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take note of new tokens, and show the model all that is held with them."""
        together = _together(keys), _together(values)
        super().admit(*together)
        shown = self.layer.show(*together)
        if self.layer.reads_prompt:
            return keys, values
        return _apart(shown[0], keys.shape[1]), _apart(shown[1], values.shape[1])

    def attend(self, call: AttentionCall) -> Tensor:
        """A layer that could rewrite its tokens need not."""
        return self.attend_rewritten(call)

    def attend_rewritten(self, call: AttentionCall) -> Tensor:
        """Dense attention over what the model made of the tokens that it was shown."""
        if not self.layer.reads_prompt:
            output = self.layer.attend(call)
        else:
            output = ordinary_attention(call)
            if self.layer.is_pending:
                self.layer.absorb_prompt(call)
        self.layer.let_go()
        return output


def _together(heads: Tensor) -> Tensor:
    """All heads of a token as one, [batch, 1, tokens, heads * dim]."""
    return heads.transpose(1, 2).flatten(2)[:, None]


def _apart(together: Tensor, heads: int) -> Tensor:
    """What `_together` joined, [batch, heads, tokens, dim]."""
    apart: Tensor = together[:, 0].unflatten(2, (heads, -1))
    return apart.transpose(1, 2)
