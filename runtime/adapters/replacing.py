"""Put adapters into a model, and take them out again."""

from torch import nn

from .adapter import Adapter, Attend
from .bloom import BloomAdapter
from .code_gen import CodeGenAdapter
from .falcon import FalconAdapter
from .gpt_j import GPTJAdapter
from .gpt_neo import GPTNeoAdapter
from .gpt_neox_japanese import GPTNeoXJapaneseAdapter
from .mpt import MptAdapter
from .xglm import XGLMAdapter

_ADAPTERS: dict[str, type[Adapter]] = {
    "BloomAttention": BloomAdapter,
    "CodeGenAttention": CodeGenAdapter,
    "FalconAttention": FalconAdapter,
    "FalconFlashAttention2": FalconAdapter,
    "GPTJAttention": GPTJAdapter,
    "GPTJFlashAttention2": GPTJAdapter,
    "GPTNeoSelfAttention": GPTNeoAdapter,
    "GPTNeoXJapaneseAttention": GPTNeoXJapaneseAdapter,
    "MptAttention": MptAdapter,
    "XGLMAttention": XGLMAdapter,
}


def adapters_installed(model: nn.Module, attend: Attend) -> bool:
    """Put an adapter in the place of every attention module that has one.

    Args:
        model: The model.
        attend: The attention function they call.

    Returns:
        Whether the model has any now.
    """
    for path, module in list(model.named_modules()):
        kind = _ADAPTERS.get(type(module).__name__)
        if kind is not None:
            model.set_submodule(path, kind(module, attend))
    return any(isinstance(module, Adapter) for module in model.modules())


def adapters_removed(model: nn.Module) -> None:
    """Put the modules back that adapters stand in for."""
    for path, module in list(model.named_modules()):
        if isinstance(module, Adapter):
            # somebody may have switched the whole model meanwhile
            module.original.training = module.training
            model.set_submodule(path, module.original)
