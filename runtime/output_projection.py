"""The projection behind an attention module's output."""

import torch
from torch import Tensor, nn

from kvbudget.allocator import UnsupportedModel

_NAMES = ("o_proj", "out_proj", "dense", "c_proj", "wo", "output_proj", "attn_out", "output_linear")


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


def output_projection(attention: nn.Module) -> nn.Module:
    """The module through which an attention module writes into the residual stream.

    Raises:
        UnsupportedModel: It has none by any name that is known.
    """
    children = dict(attention.named_children())
    for name in _NAMES:
        if name in children:
            return children[name]
    raise UnsupportedModel(
        f"{type(attention).__name__}: its output projection must have one of the names "
        f"{', '.join(_NAMES)}, but its parts are {', '.join(sorted(children))}. Choose a heuristic "
        f"and a measure that do not read it."
    )


def output_weight(attention: nn.Module, heads: int) -> Tensor:
    """Output projection of one attention module, cut by head; no copy.

    Returns:
        [heads, value_dim, hidden]: head h adds `output_h @ weight[h]` to the residual.
    """
    projection = output_projection(attention)
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
