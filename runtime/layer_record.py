"""Everything that one layer of a cache holds and remembers, as named tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .arena import Region
from .attention_call import LogitRules
from .budgeted_layer import BudgetedLayer
from .judge import Judge
from .ragged import RaggedStore
from .recent_queries import RecentQueries
from .segments import Segments

_NONE = -1


@dataclass(frozen=True, slots=True, eq=False)
class LayerRecord:
    """One layer at one moment.

    Args:
        keys: Of the prefix, [rows, head_dim].
        values: Of the prefix, [rows, value_dim].
        positions: Of the prefix, [rows], int32.
        lengths: Rows of each segment, [batch, kv_heads], int64.
        state: Of the prefix, [rows, channels], float32.
        tail_keys: [batch, kv_heads, tail_tokens, head_dim].
        tail_values: [batch, kv_heads, tail_tokens, value_dim].
        counts: Tokens seen, tail slots, unseen queries, heads, columns of the prompt or -1, and
            the two numbers of the newest draft, int64 [7].
        rules: Scaling, and softcap or 0 for none, float64 [2].
        earlier_state: The state before the newest block was shown, as `state`; or None.
        queries: The newest queries, [batch, heads, queries, dim]; or None.
        sinks: Learned sink logits; or None.
        slopes: Linear biases; or None.
        real: Columns of the prompt that are no padding, [batch, columns], bool; None if all are.
        divided: Capacities that stand for the plan's, [batch, kv_heads], int64; or None.
        rooms: Rows that each segment may fill where the record was made, [batch, kv_heads], int64;
            None if they lay back to back.
        order: Row of each token of the prefix in the room of its segment, [rows], int32; or None.
            Attention adds up in this order, so with it a cache goes on to the last bit.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    lengths: Tensor
    state: Tensor
    tail_keys: Tensor
    tail_values: Tensor
    counts: Tensor
    rules: Tensor
    earlier_state: Tensor | None = None
    queries: Tensor | None = None
    sinks: Tensor | None = None
    slopes: Tensor | None = None
    real: Tensor | None = None
    divided: Tensor | None = None
    rooms: Tensor | None = None
    order: Tensor | None = None

    @classmethod
    def of(cls, layer: BudgetedLayer, store: RaggedStore) -> "LayerRecord":
        """What a layer holds now, segment by segment, oldest first."""
        judge, rules, segments = layer.judge, layer.judge.rules, store.segments
        used, rows = slice(0, store.tail_tokens), segments.held_rows()
        columns = _NONE if judge.prompt_columns is None else judge.prompt_columns
        counts = (
            layer.seen_tokens,
            store.tail_keys.shape[2],
            judge.recent.unseen,
            judge.heads,
            columns,
            *layer.draft,
        )
        return cls(
            keys=store.keys.index_select(0, rows),
            values=store.values.index_select(0, rows),
            positions=store.kept_columns(),
            lengths=store.lengths,
            state=store.kept_state(),
            tail_keys=store.tail_keys[:, :, used].contiguous(),
            tail_values=store.tail_values[:, :, used].contiguous(),
            counts=torch.tensor(counts),
            rules=torch.tensor(
                [judge.rules.scaling, judge.rules.softcap or 0.0], dtype=torch.float64
            ),
            earlier_state=store.kept_earlier_state(),
            queries=judge.recent.all() if judge.recent.holds_any else None,
            sinks=rules.sinks,
            slopes=rules.slopes,
            real=layer.real,
            divided=layer.divided,
            rooms=torch.tensor(segments.rooms).view(store.lengths.shape),
            order=segments.rows_in_rooms(),
        )

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], prefix: str) -> "LayerRecord":
        """The record that `named` wrote.

        Raises:
            ValueError: A tensor is missing; completes "the cache is not usable: ...".
        """
        found = {field.name: tensors.get(prefix + field.name) for field in fields(cls)}
        for name in [field.name for field in fields(cls)][:9]:
            if found[name] is None:
                raise ValueError(f"the tensor `{prefix}{name}` is missing")
        return cls(**found)  # type: ignore[arg-type]

    def named(self, prefix: str) -> dict[str, Tensor]:
        """The tensors that there are, by name, each with memory of its own."""
        each = {field.name: getattr(self, field.name) for field in fields(self)}
        return {prefix + name: _whole(name, each[name]) for name in each if each[name] is not None}

    @property
    def seen_tokens(self) -> int:
        """Columns read."""
        return int(self.counts[0])

    def check(self, layer: BudgetedLayer, name: str) -> None:
        """Refuse a record whose tensors do not fit the layer or each other.

        Raises:
            ValueError: Completes "the cache is not usable: ...".
        """
        shape, used = layer.room.plan.geometry.shape_of(layer.index), self.tail_keys.shape[2:3]
        batch, rows = len(self.lengths), int(self.lengths.sum())
        caches, kind = (batch, shape.kv_heads), self.keys.dtype
        wanted = {
            "keys": ((rows, shape.head_dim), kind),
            "values": ((rows, shape.value_dim), self.values.dtype),
            "positions": ((rows,), torch.int32),
            "lengths": (caches, torch.int64),
            "state": ((rows, *self.state.shape[1:2]), torch.float32),
            "tail_keys": ((*caches, *used, shape.head_dim), kind),
            "tail_values": ((*caches, *used, shape.value_dim), self.values.dtype),
            "counts": ((7,), torch.int64),
            "rules": ((2,), torch.float64),
        }
        for field, (size, dtype) in wanted.items():
            tensor = getattr(self, field)
            if tensor.shape != size or tensor.dtype != dtype:
                raise ValueError(
                    f"the tensor `{name}{field}` must be {dtype} of shape {list(size)}, but is "
                    f"{tensor.dtype} of shape {list(tensor.shape)}"
                )
        self._check_order(name)
        # none may be held: a rollback can take back all that a sliding window had left
        if int(used[0]) + int(self.lengths.max()) > self.seen_tokens or self.seen_tokens < 1:
            raise ValueError(f"the layer `{name}` holds more tokens than it has seen")

    def _check_order(self, name: str) -> None:
        """Refuse rows that are not those in which the tokens of a segment can lie.

        Raises:
            ValueError: Completes "the cache is not usable: ...".
        """
        rooms, order, lengths = self.rooms, self.order, self.lengths
        if rooms is None or order is None:
            return
        if (rooms.shape, rooms.dtype) != (lengths.shape, lengths.dtype) or bool(
            (rooms < lengths).any()
        ):
            raise ValueError(f"the tensor `{name}rooms` is too small for what lies in them")
        rows, each = torch.arange(len(self.keys)), lengths.flatten().cpu()
        first = (each.cumsum(0) - each).repeat_interleave(each)
        # in every segment each of the first rows once
        if order.shape != rows.shape or order.dtype != torch.int32:
            raise ValueError(f"the tensor `{name}order` must tell {len(rows)} rows, int32")
        if not torch.equal((first + order.cpu()).sort().values, rows) or bool(
            (order.cpu() >= each.repeat_interleave(each)).any() or (order < 0).any()
        ):
            raise ValueError(f"the tensor `{name}order` does not name every row once")

    def restore(self, layer: BudgetedLayer, region: Region) -> None:
        """Put everything back, keys and values into a region.

        Raises:
            ValueError: It does not fit; completes "the cache is not usable: ...".
        """
        seen_tokens, slots, unseen, heads, columns, *draft = self.counts.tolist()
        rows, caches, used = len(self.keys), self.lengths.numel(), self.tail_keys.shape[2]
        slots = min(slots, (len(region.keys) - rows) // caches)
        if slots < used:
            raise ValueError("it holds more tokens than the plan has room for")
        place, segments = region.keys.device, self._segments(region, caches * slots)
        held = segments.held_rows()
        region.keys[held] = self.keys.to(region.keys)
        region.values[held] = self.values.to(region.values)
        segments.positions[held] = self.positions.to(place)
        store = RaggedStore(
            region,
            len(self.lengths),
            segments,
            segments.by_place(self.state.to(place)),
            first_column=seen_tokens - used,
            tail=slots,
        )
        store.append(self.tail_keys, self.tail_values)
        if self.earlier_state is not None:
            store.note_earlier_state(self.earlier_state.to(place))
        layer.take_up(store, seen_tokens, (draft[0], draft[1]), _copied(self.real, place))
        self._remind(layer.judge, place)
        layer.judge.heads, layer.judge.recent.unseen = heads, unseen
        layer.judge.prompt_columns = None if columns == _NONE else columns

    def _segments(self, region: Region, behind: int) -> Segments:
        """Where the prefix goes: as it lay, if so many rows are left behind it, or back to back."""
        lengths: list[int] = self.lengths.flatten().tolist()
        place, rows = region.keys.device, len(region.keys)
        # added up by Python: a damaged file may tell numbers whose sum no tensor holds
        rooms: list[int] = [] if self.rooms is None else self.rooms.flatten().tolist()
        if self.order is None or not rooms or sum(rooms) + behind > rows:
            return Segments(lengths, lengths, rows, place)
        segments = Segments(rooms, lengths, rows, place)
        segments.follow_in_rooms(self.order.to(place))
        return segments

    def _remind(self, judge: Judge, place: torch.device) -> None:
        scaling, softcap = self.rules.tolist()
        judge.rules = LogitRules(
            scaling,
            softcap or None,
            _copied(self.sinks, place),
            _copied(self.slopes, place),
        )
        judge.channels, judge.recent = self.state.shape[1], RecentQueries()
        if self.queries is not None:
            judge.recent.append(self.queries.to(place, copy=True))


def _whole(name: str, tensor: Tensor) -> Tensor:
    """A tensor with memory of its own, as files want it; keys and values have a part of theirs."""
    if name in ("keys", "values"):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _copied(tensor: Tensor | None, place: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(place, copy=True)
