"""Send a model's attention through kvbudget for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from ..switched import SwitchedModels
from .attention import registered_attention
from .handoff import clear_handoff

ATTENTION_NAME = "kvbudget"
_SWITCHED = SwitchedModels(ATTENTION_NAME)


@contextmanager
def attention_switched(model: PreTrainedModel) -> Iterator[None]:
    """Send the model's attention through kvbudget, and put everything back afterwards."""
    AttentionInterface.register(ATTENTION_NAME, registered_attention)
    # always the ordinary mask: a special one would silently break other caches used meanwhile
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    clear_handoff()
    _SWITCHED.enter(model)
    try:
        yield
    finally:
        _SWITCHED.leave(model)
        clear_handoff()
