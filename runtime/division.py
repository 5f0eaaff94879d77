"""Capacities made anew for each prompt: asking all layers, dividing, and cutting to the answer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .adaptation import Adaptation, LayerScores
from .adaptation.expected import Expectations
from .eviction import select
from .judge import held_tokens
from .padded_tokens import PaddedTokens

if TYPE_CHECKING:
    from kvbudget.heuristics import LayerView

    from .arenas import Arenas
    from .budgeted_layer import BudgetedLayer


@dataclass(slots=True, eq=False)
class Verdict:
    """What the heuristic said of one layer's tokens, and then what stays of them.

    Args:
        scores: Score of each token, [batch, kv_heads, tokens], float32.
        reach: Tokens that may still be seen, same shape, bool.
        state: What the heuristic remembers of each, [batch, kv_heads, tokens, channels].
        block: The last of these tokens, which are not held yet; None if all are.
        keep: What stays, [batch, kv_heads, tokens]; None until that is known.
    """

    scores: Tensor
    reach: Tensor
    state: Tensor
    block: PaddedTokens | None = None
    keep: Tensor | None = None

    @property
    def num_held(self) -> int:
        """Places of tokens that are held already; those of the block stand behind them."""
        new = 0 if self.block is None else self.block.valid.shape[2]
        return self.reach.shape[2] - new

    def fits(self, capacities: Tensor) -> bool:
        """Whether nothing has to go."""
        return bool((held_tokens(self.reach) <= capacities).all())


class Division:
    """Divides the capacities of one cache's layers anew, for each prompt.

    Args:
        adaptation: How.
        arenas: Memory of the cache, to be cut to the answer.

    Attributes:
        waits: Whether all layers have to be read first.
        layers: All layers of the cache.
    """

    def __init__(self, adaptation: Adaptation, arenas: Arenas) -> None:
        self.waits = adaptation.sees_all_layers
        self.layers: Sequence[BudgetedLayer] = ()
        self._adaptation, self._arenas = adaptation, arenas
        self._expectations = Expectations()

    def keep_within(
        self, layer: BudgetedLayer, view: LayerView, reach: Tensor, room: Tensor
    ) -> Tensor | None:
        """What stays of a layer whose capacities are divided by themselves.

        Returns:
            [batch, kv_heads, tokens], bool; None if the capacities stay: `room` is not the plan's,
            or nothing has to go.
        """
        planned = planned_tokens(layer)
        if self.waits or not torch.equal(room, planned):
            return None
        verdict = Verdict(layer.judge.scores(view), reach, reach)
        if verdict.fits(planned):
            return None
        (layer.divided,) = self._adaptation.divide([self._asked(layer, verdict)])
        return select(verdict.scores, reach, layer.divided)

    def holds_back(self, layer: BudgetedLayer, tokens: PaddedTokens, block: PaddedTokens) -> bool:
        """Whether a prompt is not cut before the other layers have read it.

        It is scored, and all layers are cut when the last one has come so far.

        Args:
            layer: Which has read it.
            tokens: All its tokens, those held and the prompt behind them.
            block: The prompt.
        """
        batch = len(tokens.valid)
        if not self.waits or layer.room.everything_fits(batch, layer.seen_tokens):
            return False
        layer.judge.prompt_columns, layer.divided = None, None
        self._ask(layer, tokens, batch, layer.seen_tokens, block)
        if len(self._waiting()) == sum(each.division is self for each in self.layers):
            self._go_on(batch, layer.seen_tokens)
        return True

    def divide_held(self, batch: int, seen_tokens: int) -> None:
        """Divide for what is held, and cut to it; the memory is still to be laid out anew."""
        for layer in self.layers:
            if layer.division is self and layer.store is not None:
                tokens = layer.store.padded(dense=layer.heuristic.reads_tokens)
                self._ask(layer, tokens, batch, seen_tokens)
        self._divide(self._waiting())
        for layer in self._waiting():
            layer.verdict = None

    def _ask(
        self,
        layer: BudgetedLayer,
        tokens: PaddedTokens,
        batch: int,
        seen_tokens: int,
        block: PaddedTokens | None = None,
    ) -> None:
        view = layer.judge.shown(tokens, layer.seen_tokens)
        reach = layer.in_reach(tokens, batch, seen_tokens)
        scores, state = layer.judge.scores(view), layer.judge.state(view)
        layer.verdict = Verdict(scores, reach, state, block)

    def _go_on(self, batch: int, seen_tokens: int) -> None:
        """Divide, lay out the memory for it, and put every layer's prompt there."""
        waiting = self._waiting()
        self._divide(waiting)
        rows = [layer.room_rows(batch, seen_tokens) for layer in self.layers]
        stores = {layer.index: layer.store for layer in self.layers if layer.store is not None}
        self._arenas.arrange(rows, stores)
        for layer in waiting:
            _take_in(layer)

    def holds(self, rows: Tensor) -> bool:
        """Whether every layer has memory for what it may hold of these sequences."""
        kept = rows.cpu()
        return all(
            layer.divided is None
            or layer.store is None
            or int(layer.divided[kept].sum()) <= len(layer.store.region.keys)
            for layer in self.layers
        )

    def forget(self) -> None:
        """Return to the plan's capacities."""
        for layer in self.layers:
            layer.divided = None

    def _waiting(self) -> list[BudgetedLayer]:
        return [layer for layer in self.layers if layer.verdict is not None]

    def _divide(self, layers: Sequence[BudgetedLayer]) -> None:
        """Divide among layers that share memory, and cut what they hold to the answer."""
        for group in self._groups(layers):
            if not all(_told(layer).fits(planned_tokens(layer)) for layer in group):
                asked = [self._asked(layer, _told(layer)) for layer in group]
                for layer, capacities in zip(group, self._adaptation.divide(asked), strict=True):
                    layer.divided = capacities
        # all of them, before one grows at another's expense
        for layer in layers:
            _cut_held(layer)

    def _groups(self, layers: Sequence[BudgetedLayer]) -> list[list[BudgetedLayer]]:
        """Layers on one device, whose keys take the same part of a token's bytes.

        Keys and values lie in blocks of their own, so bytes of keys cannot become bytes of values.
        """
        groups: dict[Hashable, list[BudgetedLayer]] = {}
        for layer in layers:
            room, shape = layer.room, layer.room.plan.geometry.shape_of(layer.index)
            place = next(at for at, share in enumerate(room.shares) if layer.index in share.layers)
            part = Fraction(shape.head_dim, shape.value_dim)
            groups.setdefault((place, part), []).append(layer)
        return list(groups.values())

    def _asked(self, layer: BudgetedLayer, verdict: Verdict) -> LayerScores:
        plan = layer.room.plan
        expected = self._expectations.of(plan, layer.seen_tokens)
        return LayerScores(
            scores=verdict.scores,
            reach=verdict.reach,
            capacity_tokens=planned_tokens(layer),
            token_bytes=int(plan.geometry.token_bytes[layer.index, 0]),
            expected=None if expected is None else expected[layer.index],
        )


def planned_tokens(layer: BudgetedLayer) -> Tensor:
    """The plan's capacities of a layer, [1, kv_heads], int64, on the CPU."""
    plan = layer.room.plan
    heads = plan.geometry.shape_of(layer.index).kv_heads
    return torch.tensor(plan.capacity_tokens[layer.index, :heads])[None]


def _told(layer: BudgetedLayer) -> Verdict:
    assert layer.verdict is not None, "the layer has been asked"
    return layer.verdict


def _cut_held(layer: BudgetedLayer) -> None:
    """Cut what is held to the capacities just made; a block behind it still waits."""
    verdict, store = _told(layer), layer.store
    capacities = planned_tokens(layer) if layer.divided is None else layer.divided
    verdict.keep = select(verdict.scores, verdict.reach, capacities)
    if store is not None:
        held = verdict.num_held
        store.merge(verdict.keep[:, :, :held], verdict.state[:, :, :held], 0, capacities)
        layer.forget_draft()


def _take_in(layer: BudgetedLayer) -> None:
    """Put what stays of the block that waited behind what is held."""
    verdict, layer.verdict = _told(layer), None
    assert verdict.block is not None, "a prompt was read"
    assert verdict.keep is not None, "the layer was cut"
    keep, held = verdict.keep, verdict.num_held
    tokens = replace(verdict.block, state=verdict.state[:, :, held:])
    if layer.store is not None:
        before = layer.store.padded()
        keep = torch.cat([before.valid, keep[:, :, held:]], 2)
        tokens = before.join(tokens)
    layer.hold(tokens, keep)
    layer.judge.prompt_columns = layer.seen_tokens
