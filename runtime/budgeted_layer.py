"""One layer's cache inside its budget: prefill, decode, and eviction between them."""

from dataclasses import replace

import torch
from torch import Tensor

from kvbudget.heuristics import LayerView, TokenHeuristic, checked_scores
from kvbudget.kernels import ragged_attention

from .attention_call import AttentionCall
from .eviction import longest_tail, select, tail_slots
from .ragged import PaddedTokens, RaggedStore, block_tokens
from .room import Room

_QUERY_CHUNK = 256


class BudgetedLayer:
    """Holds the keys and values of one layer within the plan's capacities.

    New tokens take one of three ways. The first block, the prompt, has its attention computed
    densely and is then cut (`absorb_prompt`). A few tokens go into the tail, after an eviction if
    the tail is full. A longer block attends to what is held and itself, and is then cut together
    with it; only one layer's block is alive at a time.

    All of it is for inference: gradients are not followed through what is held.

    Args:
        index: Layer number.
        room: Capacities for any number of rows and columns.
        heuristic: Scores the tokens whenever some have to go.
        window: Sliding window in tokens, None for full attention.
    """

    def __init__(
        self, index: int, room: Room, heuristic: TokenHeuristic, window: int | None
    ) -> None:
        self.index, self.room, self.heuristic, self.window = index, room, heuristic, window
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.seen_tokens = 0
        self.store: RaggedStore | None = None
        self._settings: AttentionCall | None = None
        self._recent_queries = 0
        self._in_tail = False

    @torch.no_grad()
    def admit(self, keys: Tensor, values: Tensor) -> None:
        """Take note of new tokens, [batch, kv_heads, new, dim], before they attend.

        Raises:
            InfeasibleBudget: The plan was made for a shorter prompt, or for fewer rows.
        """
        if self.store is None:
            self.room.check_prompt(keys.shape[2])
        self.seen_tokens += keys.shape[2]
        self._in_tail = self.store is not None and self._make_room(self.store, keys.shape[2])
        if self._in_tail:
            self._held().append(keys, values)

    @torch.no_grad()
    def attend(self, call: AttentionCall) -> Tensor:
        """Attention of tokens after the prompt over all that is held and themselves.

        Returns:
            [batch, new, heads, value_dim].

        Raises:
            ValueError: The tokens hold padding.
        """
        if not bool(call.real_tokens().all()):
            raise ValueError(
                f"Only the first prompt may be padded, but a later block of "
                f"{call.queries.shape[2]} tokens holds padding. Feed such rows one by one."
            )
        output = self._attend_tail(call) if self._in_tail else self._attend_block(call)
        return output.transpose(1, 2).contiguous()

    @torch.no_grad()
    def absorb_prompt(self, call: AttentionCall) -> None:
        """Keep the best of a prompt whose attention has been computed.

        Raises:
            ValueError: The prompt is padded on the right.
        """
        real = call.real_tokens()
        if not bool(real[:, -1].all()):
            raise ValueError(
                "Prompts must be padded on the left, but a row ends in padding. "
                'Set tokenizer.padding_side = "left".'
            )
        # a slice would keep the whole prompt's queries alive
        nothing = call.queries[:, :, :0].clone()
        self._settings = replace(call, queries=nothing, keys=nothing, values=nothing, mask=None)
        self._absorb(block_tokens(call.keys, call.values, 0, real), call)

    def select_rows(self, rows: Tensor) -> None:
        """Keep these sequences, in this order, repeats allowed."""
        if self.store is not None:
            self.store.select_rows(rows.to(self.store.offsets.device))

    def crop(self, removed: int) -> None:
        """Forget the newest `removed` columns."""
        self.seen_tokens -= removed
        if self.store is not None:
            self.store.crop(self.seen_tokens)

    def _held(self) -> RaggedStore:
        assert self.store is not None, "a prompt comes first"
        return self.store

    def _capacities(self, batch: int) -> Tensor:
        return self.room.capacities(self.index, batch, self.seen_tokens)

    def _make_room(self, store: RaggedStore, new: int) -> bool:
        """Whether `new` tokens fit the tail, after an eviction where that makes them fit."""
        if new <= store.free_tail:
            return True
        capacities = self._capacities(store.batch)
        if new > longest_tail(capacities):
            return False
        before = self.seen_tokens - new
        tokens = store.padded(dense=self.heuristic.reads_tokens)
        reach = self._in_reach(tokens, before)
        tail = tail_slots(capacities, _most_held(reach), new)
        view = self._view(tokens, self._quiet_call(store), before)
        store.merge(self._keep(view, reach, capacities - tail), tail)
        self._recent_queries = 0
        return True

    def _quiet_call(self, store: RaggedStore) -> AttentionCall:
        """The layer's settings with no queries: between two steps there are none at hand."""
        assert self._settings is not None, "a prompt comes first"
        shape = (store.batch, *self._settings.queries.shape[1:])
        return replace(self._settings, queries=self._settings.queries.new_empty(shape))

    def _attend_tail(self, call: AttentionCall) -> Tensor:
        store = self._held()
        self._recent_queries += call.queries.shape[2]
        watch = self.heuristic.watches_attention
        return self._ragged(
            call,
            (store.tail_keys, store.tail_values, store.tail_tokens),
            self.seen_tokens,
            (store.mass, store.tail_mass) if watch else (None, None),
        )

    def _attend_block(self, call: AttentionCall) -> Tensor:
        """Attend in query chunks with the block behind the tail, then cut everything."""
        store, new = self._held(), call.keys.shape[2]
        used, first = store.tail_tokens, self.seen_tokens - new
        keys = torch.cat([store.tail_keys[:, :, :used], call.keys], 2)
        values = torch.cat([store.tail_values[:, :, :used], call.values], 2)
        parts = []
        for start in range(0, new, _QUERY_CHUNK):
            end = min(start + _QUERY_CHUNK, new)
            rows = replace(call, queries=call.queries[:, :, start:end])
            parts.append(self._ragged(rows, (keys, values, used + end), first + end))
        real = torch.ones(store.batch, new, dtype=torch.bool, device=keys.device)
        block = block_tokens(call.keys, call.values, first, real)
        self._absorb(store.padded().join(block), call)
        return torch.cat(parts, 2)

    def _ragged(
        self,
        call: AttentionCall,
        tail: tuple[Tensor, Tensor, int],
        seen_tokens: int,
        mass: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> Tensor:
        store = self._held()
        return ragged_attention(
            call.queries,
            store.keys,
            store.values,
            store.offsets,
            store.positions,
            *tail,
            seen_tokens=seen_tokens,
            scaling=call.scaling,
            window=self.window,
            softcap=call.softcap,
            sinks=call.sinks,
            mass=mass[0],
            tail_mass=mass[1],
        )

    def _absorb(self, tokens: PaddedTokens, call: AttentionCall) -> None:
        """Cut old and new tokens together to the capacities, by the block's own queries."""
        view = self._view(tokens, call, self.seen_tokens)
        if self.heuristic.remembers_attention:
            view = view.counted()
            total = view.total_attention()
            tokens = replace(tokens, past_mass=total, recent_mass=torch.zeros_like(total))
        reach = self._in_reach(tokens, self.seen_tokens)
        keep = self._keep(view, reach, self._capacities(tokens.valid.shape[0]))
        self.store = RaggedStore(tokens, keep, first_column=self.seen_tokens, tail=0)
        self._recent_queries = 0

    def _in_reach(self, tokens: PaddedTokens, next_column: int) -> Tensor:
        """Tokens that the query at `next_column` may still see, as a mask.

        While everything fits the budget all are in reach: a rollback then finds every column.
        """
        batch = tokens.valid.shape[0]
        if self.window is None or self.room.everything_fits(batch, self.seen_tokens):
            return tokens.valid
        return tokens.valid & (tokens.positions > next_column - self.window)

    def _keep(self, view: LayerView, reach: Tensor, capacities: Tensor) -> Tensor:
        """What stays; tokens out of reach go, but earlier queries did see them while scoring."""
        if bool((_most_held(reach) <= capacities).all()):
            return reach
        return select(checked_scores(self.heuristic, view), reach, capacities)

    def _view(self, tokens: PaddedTokens, call: AttentionCall, next_column: int) -> LayerView:
        new = call.queries.shape[2]
        return LayerView(
            layer=self.index,
            keys=tokens.keys,
            values=tokens.values,
            valid=tokens.valid,
            positions=tokens.positions,
            queries=call.queries,
            query_positions=torch.arange(next_column - new, next_column, device=tokens.keys.device),
            scaling=call.scaling,
            window=self.window,
            softcap=call.softcap,
            sinks=call.sinks,
            past_attention=tokens.past_mass + tokens.recent_mass,
            recent_attention_mass=tokens.recent_mass,
            recent_queries=self._recent_queries,
        )


def _most_held(valid: Tensor) -> Tensor:
    """Tokens each cache holds, the most over the batch, [kv_heads], on the CPU."""
    return valid.sum(-1).amax(0).cpu()
