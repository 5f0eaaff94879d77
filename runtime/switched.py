"""Which models run through kvbudget's attention just now."""

import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

Undo = Callable[[PreTrainedModel], None]


class SwitchedModels:
    """Models whose attention is switched, how often over, and how to put it back.

    Contexts on one model may overlap in any order, also from several threads: the first one
    switches, the last one to leave puts back.

    Args:
        switch: Switches a model that may be switched already, and returns what undoes it.
    """

    def __init__(self, switch: Callable[[PreTrainedModel], Undo]) -> None:
        self._switch = switch
        self._lock = threading.Lock()
        self._models: WeakKeyDictionary[PreTrainedModel, tuple[int, Undo]] = WeakKeyDictionary()

    def enter(self, model: PreTrainedModel) -> None:
        """Switch the model, once more."""
        with self._lock:
            undo = self._switch(model)
            count, first = self._models.get(model, (0, undo))
            self._models[model] = (count + 1, first)

    def leave(self, model: PreTrainedModel) -> None:
        """Undo one switch, and put the model's own attention back with the last."""
        with self._lock:
            # a context that was never left may outlive its model
            count, undo = self._models.pop(model, (0, _nothing))
            if count > 1:
                self._models[model] = (count - 1, undo)
            else:
                undo(model)


def _nothing(model: PreTrainedModel) -> None:
    """Nothing was switched."""
