"""Attention calls that come from a compiled graph, or while one is recorded.

Such a forward asks for the first column, and then, layer by layer, hands over new tokens and gets
their attention. One token that follows a prompt is a step: it is counted ahead in all layers, by a
hook before the forward or else by its first layer. Anything longer is read as ever.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

import torch
from torch import Tensor

from kvbudget.allocator import KVBudgetError

from ..attention_call import AttentionCall
from ..budgeted_layer import BudgetedLayer
from ..cached_layer import CachedLayer
from ..column_mask import check_mask
from ..layer_stack import LayerStack
from ..steps import Steps
from ..turn import Turn
from .attention import check_call
from .graph_ops import number_for, spend
from .handoff import clear_handoff

if TYPE_CHECKING:
    from .layers import BudgetedCacheLayer


class GraphCalls:
    """Serves the compiled and the recorded forwards of one cache.

    Args:
        stack: The layers, all of them ordinary ones.
        turn: Whose turn it is.
        layers: The same layers as transformers sees them, by index.

    Attributes:
        number: By what graphs find the cache.
        like: An empty tensor where the first layer lies; None before it is known where that is.
        is_held: Whether a step was opened by the user, who will close it.
        serves_graphs: Whether a compiled forward ever came.
        tells_columns: Whether the model gets the number of columns as a tensor. One that computes
            with it in Python gets it as it is: its graphs have shapes that grow.
    """

    def __init__(
        self, stack: LayerStack, turn: Turn, layers: Mapping[int, "BudgetedCacheLayer"]
    ) -> None:
        self._stack, self._turn, self._layers = stack, turn, layers
        self._steps = Steps(stack.layers)
        self._is_own_step = self._is_own_turn = False  # begun by a first layer, not by a hook
        self._first_column: int | None = None  # of what is being read
        self._recorded: list[object] | None = None
        self._is_replayed = False  # whether a compiler recorded the layers behind the first
        self._check: WeakMethod[Callable[[], None]] | None = None
        self.number = number_for(self)
        self.like: Tensor | None = None
        self.is_held = self.serves_graphs = self.tells_columns = False
        place = stack.place_of(0)
        if place is not None and _is_there(place):
            self.note_place(place)

    def __deepcopy__(self, memo: dict[int, object]) -> "GraphCalls":
        """A copy of the cache is found by a number of its own."""
        copied = GraphCalls(
            deepcopy(self._stack, memo), deepcopy(self._turn, memo), deepcopy(self._layers, memo)
        )
        copied._steps = self._steps.copied_for(copied._stack.layers)
        copied._check, copied.serves_graphs = self._check, self.serves_graphs
        copied.tells_columns = self.tells_columns
        return copied

    def columns_before(self, layer: int = 0) -> int:
        """Columns that a layer has read, a token that may not have come yet not counted."""
        return self._stack.layers[layer].seen_tokens - self._steps.counted(layer)

    def note_place(self, device: torch.device) -> None:
        """Take note of where the first layer lies."""
        if self.like is None or self.like.device != device:
            with torch.inference_mode(False):
                self.like = torch.empty(0, device=device)

    def serve(self, check: Callable[[], None], tells_columns: bool) -> None:
        """Take note of the model.

        Args:
            check: A method that looks at it before a forward that no hook announced.
            tells_columns: Whether it can be told the number of columns as a tensor.
        """
        self._check, self.tells_columns = WeakMethod(check), tells_columns

    @contextmanager
    def held_step(self) -> Iterator[int]:
        """Count a token ahead, for forwards and replays that the caller makes inside.

        Yields:
            A number that changes when what was recorded before is void.

        Raises:
            ValueError: Nothing was read yet.
            KVBudgetError: Another thread is in the middle of a forward, or a step is open.
        """
        self.settle()
        if not self._stack.rows:
            raise ValueError("The cache must have read a prompt before a step, but is empty.")
        self._open(self._stack.rows)
        self.is_held = True
        self._turn.begin(is_empty=False)
        try:
            yield self.number
        except BaseException:
            self._steps.take_back()
            raise
        finally:
            clear_handoff()
            self._steps.close()
            self.is_held = False
            self._turn.end(is_whole=True)

    def settle(self) -> None:
        """Count a token no more whose forward broke off, before the cache is changed or read.

        Raises:
            KVBudgetError: A step is open, or another thread is in the middle of a forward.
        """
        self.check_closed()
        if self._steps.is_open or self._is_own_turn:
            self._turn.check_free()
            self._drop()

    def check_closed(self) -> None:
        """Refuse what cannot be done while the user holds a step open.

        Raises:
            KVBudgetError: One is open.
        """
        if self.is_held:
            raise KVBudgetError(
                "A decoding step is open, in which the cache reads one token and nothing else: "
                "leave `with cache.decoding_step()` first."
            )

    def forget(self) -> None:
        """The cache is emptied: nothing is left of a forward that broke off.

        Raises:
            KVBudgetError: A step is open.
        """
        self.check_closed()
        self._steps.close()
        self._is_own_step, self._first_column = False, None

    def expect(self, new: int) -> None:
        """Count a token ahead, before a compiled forward, if it is one that follows a prompt."""
        if self.is_held:
            return
        self._is_own_turn = False  # a hook has begun this one
        self._drop()
        if self._is_step(new):
            self._open(self._stack.rows)

    def withdraw(self, layer: int, place: torch.device) -> None:
        """A layer goes on without a graph, though its token may have been counted ahead."""
        if layer == 0:
            self.note_place(place)
            self._drop_step()
        elif self._steps.is_open:
            self._steps.take_back_in(layer)

    def finish(self, is_whole: bool) -> None:
        """A forward came to its end; one that did not is taken back."""
        self._first_column = None
        if self._steps.is_open and not self.is_held:
            # a forward that read nothing leaves nothing behind
            self._close_step(is_whole and self._steps.was_begun)

    def column(self, like: Tensor) -> Tensor:
        """Column of the first new token, int64."""
        if self._steps.is_open:
            return self._steps.column()
        _refuse_recording(like)
        before = self.columns_before() if self._first_column is None else self._first_column
        return torch.full((), before, dtype=torch.int64, device=like.device)

    def attend(self, layer: int, call: AttentionCall, window: int | None) -> Tensor:
        """Take note of new tokens of a layer and let them attend.

        Returns:
            [batch, new, heads, value_dim].
        """
        if layer == 0:
            self._begin(call)
        is_step = self._steps.is_open
        output = self._step(layer, call) if is_step else self._read(layer, call, window)
        if layer == len(self._layers) - 1:
            self._end(call.queries)
        return output

    def _step(self, layer: int, call: AttentionCall) -> Tensor:
        if self._is_own_step:
            _refuse_recording(call.queries)
        self._layers[layer].check_tokens(call.keys, call.values)
        return self._steps.run(layer, call.queries, call.keys, call.values)

    def _read(self, layer: int, call: AttentionCall, window: int | None) -> Tensor:
        """Read tokens as ever."""
        _refuse_recording(call.queries)
        if self._stack.layers[layer].division is not None:
            # kept until the last layer has read, but what a graph hands over is its own
            parts = (call.queries.clone(), call.keys.clone(), call.values.clone())
            call = replace(call, queries=parts[0], keys=parts[1], values=parts[2])
        ours, call = self._layers[layer], replace(call, module=self._stack.attention(layer))
        check_call(ours, call, window)
        ours.admit(call.keys, call.values)
        return ours.attend(call).contiguous()

    def _begin(self, call: AttentionCall) -> None:
        rows, new = call.queries.shape[0], call.queries.shape[2]
        self._turn.check_free()
        self.serves_graphs = self.serves_graphs or not self.is_held
        if self._steps.is_open and not self._is_own_step:
            if (rows, new) != (self._stack.rows, 1):
                raise ValueError(
                    f"A decoding step must read one token in each of {self._stack.rows} row(s), "
                    f"but got {new} in {rows}."
                )
        else:
            self._begin_by_itself(call, rows, new)
        if self._steps.is_open and call.mask is not None:
            _refuse_recording(call.queries, "with an attention mask")
            first = self._stack.layers[0]
            check_mask(call, first.real, first.window)

    def _begin_by_itself(self, call: AttentionCall, rows: int, new: int) -> None:
        """Begin a forward that no hook has got ready."""
        _refuse_recording(call.queries)
        if self._is_replayed and self._is_step(new):
            raise KVBudgetError(
                "The compiled forward was recorded in calls of the model, so it cannot be called "
                "by itself: call the model."
            )
        self._drop_step()  # the last forward broke off
        if self._is_own_turn or not self._turn.is_mine():
            self._take_turn()
        self._stack.check_input(rows, new)
        if self._is_step(new):
            self._open(rows)
            self._is_own_step = True
        else:
            self.note_place(call.queries.device)
            self._stack.expect(rows, new)
            self._first_column = self._stack.seen_tokens

    def _take_turn(self) -> None:
        check = None if self._check is None else self._check()
        if check is not None:
            check()
        self._is_own_turn = True
        if self._turn.begin(self._stack.seen_tokens == 0):
            for layer in self._layers.values():
                layer.reset()

    def _end(self, like: Tensor) -> None:
        if _is_recording(like):
            self._recorded, self._is_replayed = self._steps.memory(), not self.is_held
        self._first_column = None
        if self._steps.is_open and self._is_own_step:
            self._close_step(is_whole=True)
        if self._is_own_turn:
            self._is_own_turn = False
            self._turn.end(is_whole=True)

    def _is_step(self, new: int) -> bool:
        return new == 1 and self._stack.rows > 0

    def _open(self, rows: int) -> None:
        self._stack.expect(rows, 1)
        self._steps.open()
        if self._recorded is not None and self._recorded != self._steps.memory():
            spend(self.number)
            self.number = number_for(self)
            self._recorded, self._is_replayed = None, False

    def _drop(self) -> None:
        """Leave nothing of a forward that broke off, and that no hook has seen the end of."""
        self._drop_step()
        self._first_column = None
        if self._is_own_turn:
            self._is_own_turn = False
            self._turn.end(is_whole=False)

    def _drop_step(self) -> None:
        if self._steps.is_open:
            self._close_step(is_whole=False)

    def _close_step(self, is_whole: bool) -> None:
        self._is_own_step = False
        if is_whole:
            self._steps.close()
        else:
            self._steps.take_back()


def calls_of(
    stack: LayerStack, turn: Turn, layers: Sequence[Any], cached: Sequence[CachedLayer]
) -> GraphCalls | None:
    """What serves compiled forwards, if nothing but ordinary layers is there.

    Args:
        stack: The layers.
        turn: Whose turn it is.
        layers: All layers of the model as transformers sees them.
        cached: Those of the stack.
    """
    special = any(each.states or each.readers for each in cached)
    if special or any(type(layer) is not BudgetedLayer for layer in stack.layers):
        return None
    return GraphCalls(stack, turn, {each.index: layers[each.number] for each in cached})


def _is_there(device: torch.device) -> bool:
    """Whether this machine has a device; a model may be laid out for others."""
    if device.type in ("cpu", "meta"):
        return device.type == "cpu"
    there: bool = torch.get_device_module(device).is_available()
    return there


def _is_recording(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _refuse_recording(tensor: Tensor, what: str = "that was not got ready") -> None:
    """Refuse to record what the host would have to do again at every replay.

    Raises:
        KVBudgetError: A CUDA graph is being recorded.
    """
    if _is_recording(tensor):
        raise KVBudgetError(
            f"A CUDA graph cannot record a forward {what}. Record and replay one token at a time, "
            f"inside `with cache.decoding_step()`, or compile in place: "
            f"model.forward = torch.compile(model.forward, ...)."
        )
