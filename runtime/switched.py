"""Which models run through kvbudget's attention just now."""

import threading
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel


class SwitchedModels:
    """Models whose attention is switched, how often over, and what it was before.

    Contexts on one model may overlap in any order, also from several threads: the first one
    switches, the last one to leave puts back.

    Args:
        attention: Name of the registered attention to switch to.
    """

    def __init__(self, attention: str) -> None:
        self._attention = attention
        self._lock = threading.Lock()
        self._models: WeakKeyDictionary[PreTrainedModel, tuple[int, str]] = WeakKeyDictionary()

    def enter(self, model: PreTrainedModel) -> None:
        """Switch the model, once more."""
        with self._lock:
            count, before = self._models.get(model, (0, model.config._attn_implementation))
            self._models[model] = (count + 1, before)
            model.set_attn_implementation(self._attention)

    def leave(self, model: PreTrainedModel) -> None:
        """Undo one switch, and put the model's own attention back with the last."""
        with self._lock:
            count, before = self._models.pop(model)
            if count > 1:
                self._models[model] = (count - 1, before)
            else:
                model.set_attn_implementation(before)
