"""One layer's cache inside its budget: prefill, decode, and eviction between them."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from kvbudget.heuristics import LayerView, Rotation, TokenHeuristic

from .arenas import Arenas
from .attention_call import AttentionCall
from .cached_layer import CachedLayer
from .column_mask import check_mask
from .division import Division, Verdict
from .eviction import longest_tail, tail_slots
from .held_attention import attend_block, attend_tail
from .judge import Judge, held_tokens
from .padded_tokens import PaddedTokens, block_tokens
from .ragged import RaggedStore
from .recent_queries import QUERIES_REMEMBERED
from .room import Room


class StepSlots(NamedTuple):
    """Where one layer's part of a decoded token goes."""

    tail_tokens: int  # its own slot counted
    seen_tokens: int  # its own column counted
    query_slot: int


class BudgetedLayer:
    """Holds the keys and values of one layer within the plan's capacities.

    Each forward calls `admit`, and then `absorb_prompt` for the first tokens or `attend` for later
    ones. New tokens take one of three ways. The first block, the prompt, has its attention
    computed densely and is then cut. A few tokens go into the tail, after an eviction if the tail
    is full. A longer block attends to what is held and itself, and is then cut together with it;
    only one layer's block is alive at a time.

    All of it is for inference: held tokens have no gradients.

    Args:
        cached: What is known of the layer.
        room: Capacities for any number of rows and columns.
        arenas: Where keys and values are put.
        heuristic: Scores the tokens whenever some have to go.
        rotation: How the model rotates queries and keys, None if it does not.
        division: Divides the capacities anew for each prompt; None to keep the plan's.
    """

    def __init__(
        self,
        cached: CachedLayer,
        room: Room,
        arenas: Arenas,
        heuristic: TokenHeuristic,
        rotation: Rotation | None = None,
        division: Division | None = None,
    ) -> None:
        self.cached, self.room, self.heuristic = cached, room, heuristic
        self.division = division
        self.index, self.window, self.rotation = cached.index, cached.window, rotation
        self.judge = self._new_judge()
        self._arenas = arenas
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.seen_tokens = 0
        self.store: RaggedStore | None = None
        self.is_pending = False  # tokens were admitted and have not attended yet
        self.reads_prompt = False  # the newest tokens are those of a prompt
        self._block: AttentionCall | None = None  # a block that others have yet to read
        self._readers_left = 0
        self._real: Tensor | None = None
        self._in_tail = False
        self._draft = (0, 0)  # tokens of the newest block that may be taken back, queries shown
        self.divided: Tensor | None = None  # capacities of each row that stand for the plan's
        self.verdict: Verdict | None = None  # of a prompt that waits for the other layers
        self.judge.reset()
        self._arenas.release(self.index)

    def admit(self, keys: Tensor, values: Tensor) -> None:
        """Take note of new tokens, [batch, kv_heads, new, dim], before they attend.

        Raises:
            InfeasibleBudget: The plan was made for a shorter prompt, or for fewer rows.
        """
        if self.store is None:
            self.room.check_prompt(keys.shape[2])
        self.is_pending, self.reads_prompt = True, self.store is None
        self._readers_left = self.cached.readers
        self.seen_tokens += keys.shape[2]
        self._in_tail = self.store is not None and self._make_room(self.store, keys.shape[2])
        if self._in_tail:
            self.held().append(keys, values)

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
        self.judge.remember(call.queries)
        output = self._attend(call)
        if not self._in_tail:
            self._block = call
        self._finish()
        return output

    def attend_again(self, call: AttentionCall) -> Tensor:
        """The same for another layer that reads this one's keys and values after it.

        Its queries are not remembered: the layer's own decide what stays.
        """
        output = self._attend(call)
        self._readers_left -= 1
        self._finish()
        return output

    def count_ahead(self) -> StepSlots:
        """Make room for one token, and count it before it comes.

        Raises:
            InfeasibleBudget: More rows than the plan was made for, and they do not fit.
        """
        self.is_pending = True  # should an eviction fail, the cache is not to be used
        store, recent = self.held(), self.judge.recent
        self.seen_tokens += 1
        self._make_room(store, 1)
        store.tail_tokens += 1
        reads = self.heuristic.reads_queries
        slot = recent.reserve(1) if reads else self.seen_tokens
        self.is_pending = False
        return StepSlots(store.tail_tokens, self.seen_tokens, slot)

    def _finish(self) -> None:
        """Cut a block together with what was held, once nobody is left to read it."""
        if self._block is not None and self._readers_left > 0:
            return
        block, self._block = self._block, None
        if block is not None:
            self._absorb_block(block)
        self.is_pending = False

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
        self.judge.meet(call)
        self._real = None if bool(real.all()) else real.clone()
        tokens = block_tokens(call.keys, call.values, 0, real, self.judge.channels)
        tokens = self.judge.with_foretold(tokens)
        if self.division is None or not self.division.holds_back(self, tokens, tokens):
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
        held = store.lengths.cpu() + store.tail_tokens
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
            rows = rows.to(self.store.keys.device)
            self.store.select_rows(rows)
            self.judge.recent.select_rows(rows)
            self._real = None if self._real is None else self._real[rows]
            self.divided = None if self.divided is None else self.divided[rows.cpu()]

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
        self.judge.recent.crop(removed)
        if self._real is not None:
            self._real = self._real[:, : self.seen_tokens]
        if self.judge.prompt_columns is not None:
            self.judge.prompt_columns = min(self.judge.prompt_columns, self.seen_tokens)
        self.store.crop(self.seen_tokens)
        draft_tokens, shown = self._draft
        if removed <= draft_tokens:
            # what is left of a draft is shown to the heuristic again, by itself
            self.store.go_back()
            self.judge.recent.unseen = shown - removed
        self._draft = (0, 0)

    @property
    def draft(self) -> tuple[int, int]:
        """Tokens of the newest block that may be taken back, and queries shown before it was."""
        return self._draft

    @property
    def real(self) -> Tensor | None:
        """Which columns of the prompt are no padding, [batch, columns]; None if all are."""
        return self._real

    def take_up(
        self, store: RaggedStore, seen_tokens: int, draft: tuple[int, int], real: Tensor | None
    ) -> None:
        """Go on from what a layer once held."""
        self.store, self.seen_tokens, self._draft, self._real = store, seen_tokens, draft, real

    def room_rows(self, batch: int, seen_tokens: int) -> int:
        """Tokens that all caches of the layer may hold together.

        Raises:
            InfeasibleBudget: More rows than the plan was made for, and they do not fit.
        """
        capacities, _ = self._limits(batch, seen_tokens, seen_tokens)
        if len(capacities) != batch:
            capacities = capacities[:1].expand(batch, -1)  # alike in all rows
        return int(capacities.sum())

    def forget_draft(self) -> None:
        """The newest block can no longer be taken back."""
        self._draft = (0, 0)

    def overhead_nbytes(self) -> int:
        """Bytes of everything kept beside K and V."""
        kept = 0 if self.store is None else self.store.overhead_nbytes()
        real = 0 if self._real is None else self._real.untyped_storage().nbytes()
        return kept + real + self.judge.recent.nbytes()

    def held(self) -> RaggedStore:
        """What is held, once a prompt was read."""
        assert self.store is not None, "a prompt comes first"
        return self.store

    def _make_room(self, store: RaggedStore, new: int) -> bool:
        """Whether `new` tokens fit the tail, after an eviction where that makes them fit."""
        # a free slot changes nothing else that is kept, and each of torch's contexts takes its time
        return new <= store.free_tail or self._clear_tail(store, new)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _clear_tail(self, store: RaggedStore, new: int) -> bool:
        """Whether an eviction made `new` tokens fit the tail."""
        capacities, reach_from = self._limits(store.batch, self.seen_tokens, self.seen_tokens - new)
        if new > longest_tail(capacities):
            return False
        tokens = store.padded(dense=self.heuristic.reads_tokens)
        reach = tokens.from_column(reach_from)
        held = held_tokens(reach)
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
        view = self.judge.shown(tokens, store.tail_first + store.tail_tokens)
        keep = self._stays(view, reach, room, not tail)
        store.merge(keep, self.judge.state(view), tail, room + tail)
        self._draft = (0, 0)

    def _attend(self, call: AttentionCall) -> Tensor:
        """Attention over all that is held and the new tokens, [batch, new, heads, value_dim]."""
        where = (self.held(), self.judge.rules, self.window)
        if self._in_tail:
            output = attend_tail(*where, call.queries, self.seen_tokens)
        else:
            output = attend_block(*where, call, self.seen_tokens)
        return output.transpose(1, 2).contiguous()

    @torch.inference_mode(False)
    @torch.no_grad()
    def _absorb_block(self, call: AttentionCall) -> None:
        block, new = self._block_tokens(call.keys, call.values), call.keys.shape[2]
        tokens = self.held().padded().join(block)
        if new <= QUERIES_REMEMBERED:
            self._absorb(tokens, new)
        elif self.division is None or not self.division.holds_back(self, tokens, block):
            self._absorb(tokens)

    def _with_block(self, keys: Tensor, values: Tensor) -> PaddedTokens:
        """All tokens held, and a block behind them."""
        return self.held().padded().join(self._block_tokens(keys, values))

    def _block_tokens(self, keys: Tensor, values: Tensor) -> PaddedTokens:
        store, new = self.held(), keys.shape[2]
        real = torch.ones(store.batch, new, dtype=torch.bool, device=keys.device)
        return block_tokens(keys, values, self.seen_tokens - new, real, self.judge.channels)

    def _absorb(self, tokens: PaddedTokens, draft_tokens: int = 0) -> None:
        """Cut old and new tokens together to the capacities.

        Args:
            tokens: What was held and what is new.
            draft_tokens: How many are new, if they may be taken back: a helper guessed them.
        """
        if not draft_tokens:
            self.judge.prompt_columns, self.divided = None, None
        unseen = self.judge.recent.unseen
        view = self.judge.shown(tokens, self.seen_tokens, unseen if draft_tokens else 0)
        capacities, reach_from = self._limits(len(tokens.valid), self.seen_tokens, self.seen_tokens)
        reach = tokens.from_column(reach_from)
        tail = self._tail_behind(capacities, reach)
        keep = self._stays(view, reach, capacities - tail, not draft_tokens)
        kept = replace(tokens, state=self.judge.state(view))
        self.hold(kept, keep, tail)
        self._draft = (draft_tokens, unseen)
        if draft_tokens:
            self.held().note_earlier_state(tokens.state[keep])
        else:
            self.judge.prompt_columns = self.seen_tokens

    def _stays(self, view: LayerView, reach: Tensor, room: Tensor, divides: bool) -> Tensor:
        """What stays; capacities are divided anew first if that is due."""
        if divides and self.division is not None and self.divided is None:
            keep = self.division.keep_within(self, view, reach, room)
            if keep is not None:
                return keep
        return self.judge.keep(view, reach, room)

    def hold(self, tokens: PaddedTokens, keep: Tensor, tail: int = 0) -> None:
        """Hold those of the newest tokens, and of all before, that are to be kept."""
        region = self._arenas.region(self.index, tokens.keys, tokens.values)
        seen_tokens = self.seen_tokens
        capacities, _ = self._limits(len(keep), seen_tokens, seen_tokens)
        self.store = RaggedStore.of(
            tokens, keep, region, capacities, first_column=seen_tokens, tail=tail
        )

    def in_reach(self, tokens: PaddedTokens, batch: int, seen_tokens: int) -> Tensor:
        """Tokens that may still be seen once there are so many rows and columns."""
        _, reach_from = self._limits(batch, seen_tokens, self.seen_tokens)
        return tokens.from_column(reach_from)

    def _tail_behind(self, capacities: Tensor, reach: Tensor) -> int:
        """Slots of the tail behind a block that was cut to the capacities."""
        return 0  # the next token makes room for itself

    def _new_judge(self) -> Judge:
        return Judge(self.index, self.heuristic, self.window, self.rotation)

    def _limits(
        self, batch: int, seen_tokens: int, next_column: int
    ) -> tuple[Tensor, int | Tensor]:
        """Capacities for so many rows and columns, and the first column still in reach.

        In reach is what the query at `next_column` may see. While everything fits the budget all
        columns are: a rollback then finds every one of them.
        """
        capacities = self.room.capacities(self.index, batch, seen_tokens)
        fits = self.room.everything_fits(batch, seen_tokens)
        if self.divided is not None and not fits:
            capacities = self.divided
        if self.window is None or fits:
            return capacities, 0
        return capacities, max(0, next_column - self.window + 1)
