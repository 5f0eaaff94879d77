"""One layer's cache inside its budget: prefill, decode, and eviction between them."""

from dataclasses import replace

import torch
from torch import Tensor

from kvbudget.heuristics import (
    LayerView,
    RereadingHeuristic,
    Rotation,
    RunningHeuristic,
    TokenHeuristic,
    checked_scores,
    observed,
)
from kvbudget.kernels import ragged_attention

from .attention_call import QUERY_CHUNK, AttentionCall, LogitRules
from .column_mask import check_mask
from .eviction import longest_tail, select, tail_slots
from .output_projection import Borrowed, output_weight
from .ragged import PaddedTokens, RaggedStore, block_tokens
from .recent_queries import QUERIES_REMEMBERED, RecentQueries
from .room import Room


class BudgetedLayer:
    """Holds the keys and values of one layer within the plan's capacities.

    Each forward calls `admit`, and then `absorb_prompt` for the first tokens or `attend` for later
    ones. New tokens take one of three ways. The first block, the prompt, has its attention
    computed densely and is then cut. A few tokens go into the tail, after an eviction if the tail
    is full. A longer block attends to what is held and itself, and is then cut together with it;
    only one layer's block is alive at a time.

    All of it is for inference: held tokens have no gradients.

    Args:
        index: Layer number.
        room: Capacities for any number of rows and columns.
        heuristic: Scores the tokens whenever some have to go.
        window: Sliding window in tokens, None for full attention.
        rotation: How the model rotates queries and keys, None if it does not.
    """

    def __init__(
        self,
        index: int,
        room: Room,
        heuristic: TokenHeuristic,
        window: int | None,
        rotation: Rotation | None = None,
    ) -> None:
        self.index, self.room, self.heuristic, self.window = index, room, heuristic, window
        self.rotation = rotation
        self._channels = heuristic.channels if isinstance(heuristic, RunningHeuristic) else 0
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.seen_tokens = 0
        self.store: RaggedStore | None = None
        self.is_pending = False  # tokens were admitted and have not attended yet
        self._rules = LogitRules(1.0)
        self._heads = 0
        self._attention: Borrowed | None = None
        self._prompt_columns: int | None = None
        self._real: Tensor | None = None
        self._recent = RecentQueries()
        self._in_tail = False
        self._draft = (0, 0)  # tokens of the newest block that may be taken back, queries shown
        self.foretold: Tensor | None = None  # what a second reading told of the next prompt

    @torch.inference_mode(False)
    @torch.no_grad()
    def admit(self, keys: Tensor, values: Tensor) -> None:
        """Take note of new tokens, [batch, kv_heads, new, dim], before they attend.

        Raises:
            InfeasibleBudget: The plan was made for a shorter prompt, or for fewer rows.
        """
        if self.store is None:
            self.room.check_prompt(keys.shape[2])
        self.is_pending = True
        self.seen_tokens += keys.shape[2]
        self._in_tail = self.store is not None and self._make_room(self.store, keys.shape[2])
        if self._in_tail:
            self._held().append(keys, values)

    @torch.inference_mode(False)
    def attend(self, call: AttentionCall) -> Tensor:
        """Attention of tokens after the prompt over all that is held and themselves.

        Returns:
            [batch, new, heads, value_dim].

        Raises:
            ValueError: The tokens hold padding, or the mask is not the one of the prompt.
        """
        # decoded tokens share one mask, so one layer looks at it for all
        if self.index == 0 or call.queries.shape[2] > 1:
            check_mask(call, self._real, self.window)
        output = self._attend_tail(call) if self._in_tail else self._attend_block(call)
        self.is_pending = False
        return output.transpose(1, 2).contiguous()

    @torch.inference_mode(False)
    @torch.no_grad()
    def absorb_prompt(self, call: AttentionCall) -> None:
        """Keep the best of a prompt whose attention has been computed.

        Raises:
            ValueError: The prompt is padded on the right.
        """
        real = call.real_tokens()
        if not bool(real[:, -1].all()):
            raise ValueError(
                "Prompts must be padded on the left and end in a real token, but a row ends in "
                'padding. Set tokenizer.padding_side = "left"; if the prompt is read in chunks, '
                "make the first chunk longer than the padding."
            )
        self._rules, self._heads = call.rules, call.queries.shape[1]
        if self.heuristic.reads_output_weight:
            self._attention = Borrowed(call.module)
        self._real = None if bool(real.all()) else real.clone()
        self._remember(call.queries)
        tokens = block_tokens(call.keys, call.values, 0, real, self._channels)
        if isinstance(self.heuristic, RereadingHeuristic):
            self._recent.settle()  # those of the first reading do not count
            tokens = replace(tokens, state=self._take_foretold(tokens))
        self._absorb(tokens)
        self.is_pending = False

    @torch.inference_mode(False)
    @torch.no_grad()
    def shrink_to(self, batch: int, seen_tokens: int) -> None:
        """Cut to the capacities that will hold for so many rows and columns."""
        store = self.store
        if store is None:
            return
        capacities, reach_from = self._limits(batch, seen_tokens, self.seen_tokens)
        held = store.lengths.amax(0).cpu() + store.tail_tokens
        if bool((held > capacities).any()):
            tokens = store.padded(dense=self.heuristic.reads_tokens)
            self.is_pending = True  # should the heuristic fail, the cache is not to be used
            self._evict(store, tokens, tokens.from_column(reach_from), capacities, 0)
            self.is_pending = False

    @torch.inference_mode(False)
    @torch.no_grad()
    def select_rows(self, rows: Tensor) -> None:
        """Keep these sequences, in this order, repeats allowed."""
        if self.store is not None:
            rows = rows.to(self.store.offsets.device)
            self.store.select_rows(rows)
            self._recent.select_rows(rows)
            self._real = None if self._real is None else self._real[rows]

    @torch.inference_mode(False)
    @torch.no_grad()
    def crop(self, removed: int) -> None:
        """Forget the newest `removed` columns.

        Raises:
            ValueError: There are fewer.
        """
        if removed > self.seen_tokens:
            raise ValueError(
                f"`crop` must remove at most the {self.seen_tokens} tokens seen, but got {removed}."
            )
        if removed == self.seen_tokens:
            self.reset()
        if not removed or self.store is None:
            return
        self.seen_tokens -= removed
        self._recent.crop(removed)
        if self._real is not None:
            self._real = self._real[:, : self.seen_tokens]
        if self._prompt_columns is not None:
            self._prompt_columns = min(self._prompt_columns, self.seen_tokens)
        self.store.crop(self.seen_tokens)
        draft_tokens, shown = self._draft
        if removed <= draft_tokens:
            # what is left of a draft is shown to the heuristic again, by itself
            self.store.go_back()
            self._recent.unseen = shown - removed
        self._draft = (0, 0)

    def overhead_nbytes(self) -> int:
        """Bytes of everything kept beside K and V."""
        kept = 0 if self.store is None else self.store.overhead_nbytes()
        return kept + self._recent.nbytes()

    def _held(self) -> RaggedStore:
        assert self.store is not None, "a prompt comes first"
        return self.store

    def _make_room(self, store: RaggedStore, new: int) -> bool:
        """Whether `new` tokens fit the tail, after an eviction where that makes them fit."""
        if new <= store.free_tail:
            return True
        capacities, reach_from = self._limits(store.batch, self.seen_tokens, self.seen_tokens - new)
        if new > longest_tail(capacities):
            return False
        tokens = store.padded(dense=self.heuristic.reads_tokens)
        reach = tokens.from_column(reach_from)
        held = _most_held(reach)
        if new > 1 and bool((held + new > capacities).any()):
            # a block attends to everything first, and then nothing is cut too early
            return False
        tail = tail_slots(capacities, held, new)
        self._evict(store, tokens, reach, capacities - tail, tail)
        return True

    def _evict(
        self, store: RaggedStore, tokens: PaddedTokens, reach: Tensor, room: Tensor, tail: int
    ) -> None:
        """Cut the `tokens` of the store to `room` per KV head and leave a tail of free slots."""
        view = self._shown(tokens, store.tail_first + store.tail_tokens)
        store.merge(self._keep(view, reach, room), view.known_state(self._channels), tail)
        self._draft = (0, 0)

    def _attend_tail(self, call: AttentionCall) -> Tensor:
        store = self._held()
        self._remember(call.queries)
        tail = (store.tail_keys, store.tail_values, store.tail_tokens)
        return self._ragged(call.queries, tail, self.seen_tokens)

    def _attend_block(self, call: AttentionCall) -> Tensor:
        """Attend in query chunks with the block behind the tail, then cut everything."""
        store, new = self._held(), call.keys.shape[2]
        used, first = store.tail_tokens, self.seen_tokens - new
        keys = torch.cat([store.tail_keys[:, :, :used], call.keys.detach()], 2)
        values = torch.cat([store.tail_values[:, :, :used], call.values.detach()], 2)
        parts = []
        for start in range(0, new, QUERY_CHUNK):
            end = min(start + QUERY_CHUNK, new)
            queries = call.queries[:, :, start:end]
            parts.append(self._ragged(queries, (keys, values, used + end), first + end))
        with torch.no_grad():
            real = torch.ones(store.batch, new, dtype=torch.bool, device=keys.device)
            block = block_tokens(call.keys, call.values, first, real, self._channels)
            self._remember(call.queries)
            is_draft = new <= QUERIES_REMEMBERED
            self._absorb(store.padded().join(block), new if is_draft else 0)
        return torch.cat(parts, 2)

    def _ragged(
        self, queries: Tensor, tail: tuple[Tensor, Tensor, int], seen_tokens: int
    ) -> Tensor:
        store = self._held()
        return ragged_attention(
            queries,
            store.keys,
            store.values,
            store.offsets,
            store.positions,
            *tail,
            seen_tokens=seen_tokens,
            scaling=self._rules.scaling,
            window=self.window,
            softcap=self._rules.softcap,
            sinks=self._rules.sinks,
        )

    def _remember(self, queries: Tensor) -> None:
        if self.heuristic.reads_queries:
            self._recent.append(queries)

    def _take_foretold(self, tokens: PaddedTokens) -> Tensor:
        state, self.foretold = self.foretold, None
        if state is None or state.shape[:3] != tokens.valid.shape:
            raise ValueError(
                f"{type(self.heuristic).__name__} lets the model read the prompt twice, but it was "
                "not asked to. Call the model that was given to budgeted(), not a part of it."
            )
        return state

    def _absorb(self, tokens: PaddedTokens, draft_tokens: int = 0) -> None:
        """Cut old and new tokens together to the capacities.

        Args:
            tokens: What was held and what is new.
            draft_tokens: How many are new, if they may be taken back: a helper guessed them.
        """
        if not draft_tokens:
            self._prompt_columns = None
        unseen = self._recent.unseen
        view = self._shown(tokens, self.seen_tokens, unseen if draft_tokens else 0)
        capacities, reach_from = self._limits(len(tokens.valid), self.seen_tokens, self.seen_tokens)
        keep = self._keep(view, tokens.from_column(reach_from), capacities)
        kept = replace(tokens, state=view.known_state(self._channels))
        self.store = RaggedStore(kept, keep, first_column=self.seen_tokens, tail=0)
        self._draft = (draft_tokens, unseen)
        if draft_tokens:
            self.store.earlier_state = tokens.state[keep]
        else:
            self._prompt_columns = self.seen_tokens

    def _limits(self, batch: int, seen_tokens: int, next_column: int) -> tuple[Tensor, int]:
        """Capacities for so many rows and columns, and the first column still in reach.

        In reach is what the query at `next_column` may see. While everything fits the budget all
        columns are: a rollback then finds every one of them.
        """
        capacities = self.room.capacities(self.index, batch, seen_tokens)
        if self.window is None or self.room.everything_fits(batch, seen_tokens):
            return capacities, 0
        return capacities, max(0, next_column - self.window + 1)

    def _keep(self, view: LayerView, reach: Tensor, capacities: Tensor) -> Tensor:
        """What stays; tokens out of reach go, but earlier queries did see them while scoring."""
        if bool((_most_held(reach) <= capacities).all()):
            return reach
        return select(checked_scores(self.heuristic, view), reach, capacities)

    def _shown(self, tokens: PaddedTokens, next_column: int, remember: int = 0) -> LayerView:
        """What the heuristic sees, the newest queries counted in its state."""
        view = self._view(tokens, next_column)
        unseen = view.newest(self._recent.unseen)
        view = replace(view, state=observed(self.heuristic, unseen).state)
        self._recent.settle(remember)
        return view

    def _output_weight(self) -> Tensor | None:
        if self._attention is None:
            return None
        return output_weight(self._attention.module, self._heads)

    def _view(self, tokens: PaddedTokens, next_column: int) -> LayerView:
        queries = tokens.keys.new_empty(len(tokens.keys), self._heads, 0, tokens.keys.shape[-1])
        if self._recent.holds_any:
            queries = self._recent.all()
        columns = torch.arange(next_column - queries.shape[2], next_column, device=queries.device)
        return LayerView(
            layer=self.index,
            keys=tokens.keys,
            values=tokens.values,
            valid=tokens.valid,
            positions=tokens.positions,
            queries=queries,
            query_positions=columns,
            scaling=self._rules.scaling,
            window=self.window,
            softcap=self._rules.softcap,
            sinks=self._rules.sinks,
            state=tokens.state if self._channels else None,
            prompt_columns=self._prompt_columns,
            rotation=self.rotation,
            output_weight=self._output_weight(),
        )


def _most_held(valid: Tensor) -> Tensor:
    """Tokens each cache holds, the most over the batch, [kv_heads], on the CPU."""
    return valid.sum(-1).amax(0).cpu()
