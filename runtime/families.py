"""The model families that are proved exact, and where their parts are."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kvbudget.allocator import UnsupportedModel


@dataclass(frozen=True, slots=True)
class Family:
    """Names inside one architecture of transformers.

    Args:
        attention: Class name of its attention modules.
        output_projection: Name of the projection behind the attention output.
    """

    attention: str
    output_projection: str


FAMILIES = {
    "GPT2LMHeadModel": Family("GPT2Attention", "c_proj"),
    "GPTNeoXForCausalLM": Family("GPTNeoXAttention", "dense"),
    "Gemma2ForCausalLM": Family("Gemma2Attention", "o_proj"),
    "Gemma3ForCausalLM": Family("Gemma3Attention", "o_proj"),
    "GptOssForCausalLM": Family("GptOssAttention", "o_proj"),
    "LlamaForCausalLM": Family("LlamaAttention", "o_proj"),
    "MistralForCausalLM": Family("MistralAttention", "o_proj"),
    "MixtralForCausalLM": Family("MixtralAttention", "o_proj"),
    "OPTForCausalLM": Family("OPTAttention", "out_proj"),
    "Phi3ForCausalLM": Family("Phi3Attention", "o_proj"),
    "Qwen2ForCausalLM": Family("Qwen2Attention", "o_proj"),
    "Qwen3ForCausalLM": Family("Qwen3Attention", "o_proj"),
}

_PROJECTIONS = {family.attention: family.output_projection for family in FAMILIES.values()}


def family_of(model: nn.Module) -> Family:
    """Look up the family of a model.

    Raises:
        UnsupportedModel: The architecture has not been proved exact.
    """
    name = type(model).__name__
    if name not in FAMILIES:
        raise UnsupportedModel(
            f"{name} is not supported: its KV cache has not been proved exact here. "
            f"Supported are {', '.join(sorted(FAMILIES))}."
        )
    return FAMILIES[name]


def attention_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every attention module of the model with its path, in the order of the layers."""
    wanted = family_of(model).attention
    return (found for found in model.named_modules() if type(found[1]).__name__ == wanted)


class Borrowed:
    """A module that belongs to the model: whoever copies what holds it does not copy it.

    Args:
        module: The module.
    """

    __slots__ = ("module",)

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: object) -> "Borrowed":
        """Itself."""
        return self


def output_weight(attention: nn.Module, heads: int) -> Tensor:
    """Output projection of one attention module, cut by head; no copy.

    Returns:
        [heads, value_dim, hidden]: head h adds `output_h @ weight[h]` to the residual.
    """
    projection = attention.get_submodule(_PROJECTIONS[type(attention).__name__])
    weight = projection.get_parameter("weight").detach()
    # a Linear stores [hidden, heads * value_dim]; the Conv1D of GPT-2 stores the transpose
    into_hidden = weight.T if isinstance(projection, nn.Linear) else weight
    if into_hidden.is_meta:
        into_hidden = _answered(projection, into_hidden)
    by_head: Tensor = into_hidden.unflatten(0, (heads, -1))
    return by_head


@torch.no_grad()
def _answered(projection: nn.Module, shape: Tensor) -> Tensor:
    """Weight of a projection that is loaded only while it works: its answer to every unit input.

    Args:
        projection: The module.
        shape: Its weight without data, [inner, hidden].
    """
    units = torch.eye(len(shape), dtype=shape.dtype)
    answer: Tensor = projection(units) - projection(torch.zeros_like(units[:1]))
    return answer
