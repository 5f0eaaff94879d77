"""The model families that are proved exact, and where their parts are."""

from collections.abc import Iterator
from dataclasses import dataclass

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


def output_weight(model: nn.Module, attention: nn.Module, heads: int) -> Tensor:
    """Output projection of one attention module, cut by head.

    Returns:
        [heads, value_dim, hidden], float32: head h adds `output_h @ weight[h]` to the residual.
    """
    projection = attention.get_submodule(family_of(model).output_projection)
    weight = projection.get_parameter("weight").detach().float()
    # a Linear stores [hidden, heads * value_dim]; the Conv1D of GPT-2 stores the transpose
    into_hidden = weight.T if isinstance(projection, nn.Linear) else weight
    return into_hidden.reshape(heads, -1, into_hidden.shape[-1])
