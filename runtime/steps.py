"""Decoding one token in two parts: what the host settles ahead, and what is left for a device.

The host makes room in every layer, counts the token as if it had come already, and tells each
device where things are to be written and read. What remains, layer by layer, are commands that are
the same from token to token: they can be compiled into one graph, or recorded and replayed. Given
twice they do no harm, and a token that never came is taken back.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .budgeted_layer import BudgetedLayer, StepSlots
from .held_attention import attend_tail


class _Marks:
    """What one device is told of the layers that lie there; its tensors stay where they are.

    Args:
        device: The device.
        layers: How many lie there.
    """

    def __init__(self, device: torch.device, layers: int) -> None:
        self.lengths = torch.zeros(layers, 2, dtype=torch.int32, device=device)
        self.slots = torch.zeros(layers, 3, dtype=torch.int64, device=device)
        self._told: Tensor | None = None

    def tell(self, counts: Sequence[StepSlots]) -> None:
        """Write down where a step takes place."""
        told = torch.tensor(counts)
        if self._told is not None and torch.equal(told, self._told + 1):
            # as nearly always: two commands that wait for nothing
            self.lengths.add_(1)
            self.slots.add_(1)
        else:
            slots = told[:, [0, 2, 1]] - torch.tensor([1, 0, 1])
            self.lengths.copy_(told[:, :2])
            self.slots.copy_(slots)
        self._told = told


class Steps:
    """Takes ordinary layers through decoding, a token at a time.

    Args:
        layers: Layers that advance together.

    Attributes:
        is_open: Whether a token is counted that may not have come yet.
        was_begun: Whether the first layer has brought its part of it.
    """

    def __init__(self, layers: Sequence[BudgetedLayer]) -> None:
        self._layers = layers
        self._marks: dict[torch.device, _Marks] = {}
        self._places: list[tuple[_Marks, int]] = []
        self._by_themselves: set[int] = set()  # layers that count the token as ever
        self.is_open = self.was_begun = False

    @torch.inference_mode(False)
    @torch.no_grad()
    def open(self) -> None:
        """Make room for one token in every layer, and count it."""
        assert not self.is_open, "one token at a time"
        counts = [layer.count_ahead() for layer in self._layers]
        devices = [layer.held().keys.device for layer in self._layers]
        if [marks.lengths.device for marks, _ in self._places] != devices:
            self._lay_out(devices)
        for device, marks in self._marks.items():
            marks.tell([each for each, at in zip(counts, devices, strict=True) if at == device])
        self._by_themselves.clear()
        self.is_open, self.was_begun = True, False

    def close(self) -> None:
        """The token has come."""
        self.is_open = False

    def take_back(self) -> None:
        """Count the token no more; what was written in its place is never read."""
        self.is_open = False
        for index, layer in enumerate(self._layers):
            if index not in self._by_themselves:
                _count_back(layer)

    def take_back_in(self, layer: int) -> None:
        """The same in one layer alone, which counts the token by itself."""
        if layer not in self._by_themselves:
            self._by_themselves.add(layer)
            _count_back(self._layers[layer])

    def counted(self, layer: int) -> int:
        """Tokens of a layer, 0 or 1, that are counted ahead."""
        return int(self.is_open and layer not in self._by_themselves)

    def copied_for(self, layers: Sequence[BudgetedLayer]) -> "Steps":
        """Steps of layers that were copied from these, without a token that may not have come."""
        copied = Steps(layers)
        copied._by_themselves = set(self._by_themselves)
        if self.is_open:
            copied.take_back()
        return copied

    def run(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Write the token of one layer, [batch, heads or kv_heads, 1, dim], and let it attend.

        Returns:
            [batch, 1, heads, value_dim].
        """
        self.was_begun = True
        marks, at = self._places[layer]
        chosen, slots, lengths = self._layers[layer], marks.slots[at], marks.lengths[at]
        store, judge = chosen.held(), chosen.judge
        store.tail_keys.index_copy_(2, slots[:1], keys.detach())
        store.tail_values.index_copy_(2, slots[:1], values.detach())
        if judge.heuristic.reads_queries:
            judge.recent.slots.index_copy_(2, slots[1:2], queries.detach())
        seen_tokens = chosen.seen_tokens
        out = attend_tail(store, judge.rules, chosen.window, queries, seen_tokens, lengths)
        return out.transpose(1, 2).contiguous()

    def column(self) -> Tensor:
        """Column of the token, int64, on the device of the first layer."""
        marks, at = self._places[0]
        return marks.slots[at, 2].clone()

    def memory(self) -> list[object]:
        """All that a recorded step would find again; a step recorded with other memory is void."""
        return [each for layer in self._layers for each in _memory(layer)]

    def _lay_out(self, devices: Sequence[torch.device]) -> None:
        self._marks = {each: _Marks(each, devices.count(each)) for each in dict.fromkeys(devices)}
        self._places = [
            (self._marks[device], devices[:index].count(device))
            for index, device in enumerate(devices)
        ]


def _count_back(layer: BudgetedLayer) -> None:
    layer.seen_tokens -= 1
    layer.held().tail_tokens -= 1
    if layer.judge.heuristic.reads_queries:
        layer.judge.recent.give_back()


def _memory(layer: BudgetedLayer) -> list[object]:
    store, recent = layer.held(), layer.judge.recent
    written = [store.keys, store.values, store.tail_keys, store.tail_values]
    if recent.holds_any:
        written.append(recent.slots)
    return [store.prefix, *((each.data_ptr(), each.shape) for each in written)]
