"""All layers of one budgeted cache: what has to be settled between them."""

import copy
from collections.abc import Hashable, Sequence
from typing import NoReturn
from weakref import ref

import torch
from torch import Tensor, nn

from kvbudget.allocator import KVBudgetError, Plan, WrongModel
from kvbudget.heuristics import Rotation, TokenHeuristic

from .adaptation import Adaptation
from .arenas import Arenas
from .cached_layer import CachedLayer
from .division import Division
from .head_split import WHOLE, HeadSplit
from .layer_kinds import layer_class, ordinary_layers
from .layer_record import LayerRecord
from .plan_part import part_of
from .ragged import RaggedStore, storage_bytes
from .room import Room


class LayerStack:
    """The layers of a cache, which share one budget and advance together.

    Args:
        plan: Capacities per layer and KV head.
        heuristic: Scores the tokens whenever some have to go.
        cached: What is known of each layer; all are ordinary by default.
        rotations: How each layer rotates queries and keys; nothing known by default.
        devices: Where each layer lies, [layers]; None if all lie together.
        adapt: Divides the capacities anew for each prompt; None to keep the plan's.
        split: Which KV heads are in this process; the plan is for those of all.

    Attributes:
        layers: One for each layer of the model.
        adaptation: What divides the capacities anew.
        split: Which KV heads are in this process.
        was_used: Whether tokens ever came in.
    """

    def __init__(
        self,
        plan: Plan,
        heuristic: TokenHeuristic,
        cached: Sequence[CachedLayer] | None = None,
        rotations: Sequence[Rotation | None] | None = None,
        devices: Sequence[Hashable] | None = None,
        adapt: Adaptation | None = None,
        split: HeadSplit = WHOLE,
    ) -> None:
        self._plan, self.split, self.adaptation = plan, split, adapt
        self._room = Room(part_of(plan, split), devices)
        self._arenas = Arenas(self._room)
        self._laid_out: tuple[int, bool] | None = None
        self.was_used = False
        self._attentions: list[ref[nn.Module]] = []
        each = cached or ordinary_layers(plan.geometry.windows)
        self._division = None if adapt is None else Division(adapt, self._arenas)
        self.layers = [
            layer_class(layer)(
                layer,
                self._room,
                self._arenas,
                heuristic,
                rotation,
                # all heads of a rewritten layer hold the same tokens: it keeps the plan's number
                None if layer.is_rewritten else self._division,
            )
            for layer, rotation in zip(each, rotations or [None] * len(each), strict=True)
        ]
        if self._division is not None:
            self._division.layers = self.layers

    def __deepcopy__(self, memo: dict[int, object]) -> "LayerStack":
        """Layers that hold the same in memory of their own."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        # what is copied in inference mode could never be written to outside of it
        with torch.inference_mode(False):
            vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled: a pickle would hold the model, and reading one runs what it says.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "A budgeted cache cannot be pickled, nor written by torch.save. Use cache.save(path), "
            "or torch.save(cache.state_dict(), path)."
        )

    @property
    def plan(self) -> Plan:
        """The plan that holds now, for the KV heads of all processes."""
        return self._plan

    @property
    def rows(self) -> int:
        """Sequences held, 0 before the first prompt."""
        store = self.layers[0].store
        return 0 if store is None else store.batch

    @property
    def seen_tokens(self) -> int:
        """Columns read so far, kept or not."""
        return self.layers[0].seen_tokens

    def foretell(self, states: Sequence[Tensor]) -> None:
        """Hand each layer what a second reading told of the prompt that comes next.

        Args:
            states: One for each layer, [batch, kv_heads, columns, channels].
        """
        for layer, state in zip(self.layers, states, strict=True):
            layer.judge.foretold = state

    def borrow(self, attentions: Sequence[nn.Module]) -> None:
        """Take note of every layer's attention module, where the heuristic asks for weights."""
        self._attentions = [ref(attention) for attention in attentions]
        for layer, attention in zip(self.layers, attentions, strict=True):
            layer.judge.borrow(attention)

    def attention(self, layer: int) -> nn.Module:
        """The attention module of a layer, of which note was taken."""
        module = self._attentions[layer]()
        assert module is not None, "the model is used just now"
        return module

    def check_input(self, rows: int, new: int) -> None:
        """Refuse tokens that cannot follow those read so far.

        Raises:
            ValueError: There are none, or in another number of rows.
        """
        if not new and not self.seen_tokens:
            raise ValueError("The prompt must hold at least one token, but is empty.")
        if not new:
            raise ValueError(
                f"The input must hold at least one token beyond the {self.seen_tokens} that "
                f"the cache has read. Pass the whole conversation with the new tokens at its end, "
                f"or call cache.reset() first."
            )
        if rows != self.rows and self.rows:
            raise ValueError(
                f"The cache holds {self.rows} row(s), but the input has {rows}: call "
                f"cache.reset() for a new batch, or repeat and select rows with "
                f"cache.batch_repeat_interleave and cache.batch_select_indices."
            )

    def expect(self, batch: int, new: int) -> None:
        """Get ready for `new` tokens in every layer.

        Raises:
            InfeasibleBudget: More rows than the plan was made for, and they do not fit.
            KVBudgetError: The last forward broke off half-way.
        """
        self.was_used = True
        self._check_whole()
        self.shrink_to(batch, self.seen_tokens + new)

    def shrink_to(self, batch: int, seen_tokens: int) -> None:
        """Cut every layer to what it may hold, before one of them grows at another's expense.

        Nothing is cut while the capacities stay what they were.
        """
        rows, room = self.rows, self._room
        fitted = rows == 0 or room.everything_fits(rows, self.seen_tokens)
        if batch > rows or (fitted and not room.everything_fits(batch, seen_tokens)):
            room.capacities(0, batch, seen_tokens)  # refuses before anything is changed
            self._renew_division(batch, seen_tokens, fitted)
            for layer in self.layers:
                layer.shrink_to(batch, seen_tokens)
        # a smaller batch is still to be selected from the rows held
        if batch >= rows:
            self._lay_out(batch, seen_tokens)

    def follow(self, rows: Tensor) -> None:
        """Get ready to go on with these sequences, repeats allowed.

        Sequences that were divided over all layers need unequal memory of a layer. Where that is
        not there for those to come, the cache returns to the plan's division.
        """
        self.shrink_to(rows.numel(), self.seen_tokens)
        if self._division is not None and not self._division.holds(rows):
            self._division.forget()
            for layer in self.layers:
                layer.shrink_to(self.rows, self.seen_tokens)
            self._laid_out = None
            self._lay_out(self.rows, self.seen_tokens)

    def shrink(self, plan: Plan) -> None:
        """Live within a plan of a smaller budget, from now on.

        Raises:
            TypeError: It is no plan.
            ValueError: Its budget is larger.
            WrongModel: The plan was made for another model.
            InfeasibleBudget: It was made for fewer rows, and they do not fit.
            KVBudgetError: The last forward broke off half-way.
        """
        self._check_plan(plan)
        if plan.budget_bytes > self.plan.budget_bytes:
            raise ValueError(
                f"`plan` must have a budget of at most {self.plan.budget_bytes:,} bytes, as the "
                f"cache has, but got {plan.budget_bytes:,}. Use cache.grow(plan)."
            )
        self._go_over_to(plan)

    def grow(self, plan: Plan) -> None:
        """Live within a plan of a larger budget, from now on.

        Raises:
            TypeError: It is no plan.
            ValueError: Its budget is smaller.
            WrongModel: The plan was made for another model.
            InfeasibleBudget: It was made for fewer rows, and they do not fit.
            KVBudgetError: The last forward broke off half-way.
        """
        self._check_plan(plan)
        if plan.budget_bytes < self.plan.budget_bytes:
            raise ValueError(
                f"`plan` must have a budget of at least {self.plan.budget_bytes:,} bytes, as the "
                f"cache has, but got {plan.budget_bytes:,}. Use cache.shrink(plan)."
            )
        self._go_over_to(plan)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _go_over_to(self, plan: Plan) -> None:
        """Cut what the plan has no room for, and move; memory of both sizes is there meanwhile."""
        self._check_whole()
        room = Room(part_of(plan, self.split), self._room.devices)
        rows, seen_tokens = self.rows, self.seen_tokens
        if rows:
            room.capacities(0, rows, seen_tokens)  # refuses before anything is cut
        self._plan, self._room, self._laid_out = plan, room, None
        for layer in self.layers:
            layer.room = room
        self._arenas.room = room
        try:
            self._renew_division(rows, seen_tokens, True)
            for layer in self.layers:
                layer.shrink_to(rows, seen_tokens)
            sizes = [layer.room_rows(rows, seen_tokens) for layer in self.layers] if rows else []
            self._arenas.resize(room, sizes, self._stores())
        except BaseException:
            self.layers[0].is_pending = True  # neither the old plan holds nor the new one
            raise
        self._laid_out = (rows, room.everything_fits(rows, seen_tokens)) if rows else None

    def records(self) -> list[LayerRecord]:
        """What every layer holds now, nothing before the first prompt.

        Raises:
            KVBudgetError: The last forward broke off half-way.
        """
        self._check_whole()
        return [LayerRecord.of(self.layers[at], store) for at, store in self._stores().items()]

    @torch.inference_mode(False)
    @torch.no_grad()
    def take_up(self, records: Sequence[LayerRecord]) -> None:
        """Forget everything, and go on from what these records tell, one for each layer or none.

        Raises:
            ValueError: A record does not fit; nothing is held then.
        """
        for layer in self.layers:
            layer.reset()
        if not records:
            return
        self.was_used = True
        try:
            for layer, record in zip(self.layers, records, strict=True):
                layer.divided = None if record.divided is None else record.divided.cpu().clone()
            self._laid_out = None
            self._lay_out(len(records[0].lengths), records[0].seen_tokens)
            for layer, record in zip(self.layers, records, strict=True):
                place = self.place_of(layer.index) or record.keys.device
                parts = (record.keys[:0].to(place), record.values[:0].to(place))
                record.restore(layer, self._arenas.region(layer.index, *parts))
        except (RuntimeError, ValueError):
            for layer in self.layers:
                layer.reset()
            raise

    def place_of(self, layer: int) -> torch.device | None:
        """Where a layer keeps its tokens, if that is known before they come."""
        place = None if self._room.devices is None else self._room.devices[layer]
        return place if isinstance(place, torch.device) else None

    def nbytes(self, overhead: bool) -> int:
        """Bytes of the live storages, with or without all that is kept beside K and V."""
        extra = sum(layer.overhead_nbytes() for layer in self.layers) if overhead else 0
        regions = [store.region for store in self._stores().values()]
        held = [block for region in regions for block in (region.keys, region.values)]
        return storage_bytes(*self._arenas.blocks(), *held) + extra

    def kept_positions(self, layer: int) -> list[list[Tensor]]:
        """Columns that one layer holds, per sequence and KV head."""
        store = self.layers[layer].store
        return [] if store is None else store.kept_positions()

    @torch.inference_mode(False)
    @torch.no_grad()
    def _lay_out(self, batch: int, seen_tokens: int) -> None:
        """Give every layer memory for what it may hold from now on."""
        wanted = (batch, self._room.everything_fits(batch, seen_tokens))
        if wanted != self._laid_out:
            rows = [layer.room_rows(batch, seen_tokens) for layer in self.layers]
            self._arenas.arrange(rows, self._stores())
            self._laid_out = wanted

    def _renew_division(self, batch: int, seen_tokens: int, is_new: bool) -> None:
        """Divide anew for what is held where the plan's capacities begin to hold.

        More rows than were divided return to the plan's division, if it was over all layers.
        """
        division, rows = self._division, self.rows
        if division is None or (not is_new and not division.waits):
            return
        division.forget()
        self._laid_out = None
        fits = self._room.everything_fits(batch, seen_tokens)
        if division.waits and is_new and 0 < batch <= rows and not fits:
            division.divide_held(batch, seen_tokens)

    def _stores(self) -> dict[int, RaggedStore]:
        stores = {layer.index: layer.store for layer in self.layers}
        return {index: store for index, store in stores.items() if store is not None}

    def _check_plan(self, plan: object) -> None:
        if not isinstance(plan, Plan):
            raise TypeError(f"`plan` must be a Plan, but got {plan!r:.80}.")
        if plan.geometry != self.plan.geometry:
            raise WrongModel(
                f"The plan must be for {self.plan.geometry}, like the cache, but it was made for "
                f"{plan.geometry}. Make one from a profile of the same model."
            )

    def _check_whole(self) -> None:
        first = self.layers[0]
        for layer in self.layers:
            if layer.is_pending or layer.verdict or layer.seen_tokens != first.seen_tokens:
                raise KVBudgetError(
                    f"The last forward broke off in layer {layer.index}, so the layers of the "
                    f"cache no longer agree. Call cache.reset() and read the prompt again."
                )
