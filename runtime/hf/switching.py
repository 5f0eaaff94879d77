"""Send a model's attention through kvbudget for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..adapters import adapters_installed, adapters_removed
from ..switched import SwitchedModels, Undo
from .attention import registered_attention
from .handoff import clear_handoff
from .masks import registered_mask

ATTENTION_NAME = "kvbudget"
_COUNT_IN_PYTHON = frozenset({"opt"})


@contextmanager
def attention_switched(model: PreTrainedModel) -> Iterator[None]:
    """Send the model's attention through kvbudget, and put everything back afterwards."""
    AttentionInterface.register(ATTENTION_NAME, registered_attention)
    # the ordinary mask: a special one would silently break other caches used meanwhile
    AttentionMaskInterface.register(ATTENTION_NAME, registered_mask)
    clear_handoff()
    _SWITCHED.enter(model)
    try:
        yield
    finally:
        _SWITCHED.leave(model)
        clear_handoff()


def takes_columns_as_tensor(model: PreTrainedModel) -> bool:
    """Whether a switched model computes positions and masks without looking at their number.

    Models that transformers compiles whole do, but some count in Python where no mask was made
    beforehand, and one whose attention we replace makes its mask by itself.
    """
    text = model.config.get_text_config(decoder=True)
    is_ours = text._attn_implementation == ATTENTION_NAME
    return is_ours and model._can_compile_fullgraph and text.model_type not in _COUNT_IN_PYTHON


def attention_of(model: PreTrainedModel) -> dict[str, Any]:
    """Implementations of a model and its parts, as `set_attn_implementation` takes them."""
    return _request(model.config, None)


def _switch(model: PreTrainedModel) -> Undo:
    """Switch a model's text part: what sees pictures or hears keeps its own attention."""
    if adapters_installed(model, registered_attention):
        return adapters_removed
    before, text = attention_of(model), model.config.get_text_config(decoder=True)
    model.set_attn_implementation(_request(model.config, text))
    return lambda switched: switched.set_attn_implementation(before)


def _request(config: PreTrainedConfig, text: PreTrainedConfig | None) -> dict[str, Any]:
    """Implementations of a configuration and its parts, ours for the text part and its parts."""
    is_text = config is text
    own = ATTENTION_NAME if is_text else config._attn_implementation
    request: dict[str, Any] = {"": own}
    for name in config.sub_configs:
        part = getattr(config, name)
        if part is not None and part._attn_implementation is not None:
            request[name] = _request(part, part if is_text else text)
    return request


_SWITCHED = SwitchedModels(_switch)
