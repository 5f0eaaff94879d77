"""The projection behind an attention module's output."""

import torch
from torch import Tensor, nn

from kvbudget.allocator import UnsupportedModel

_NAMES = ("o_proj", "out_proj", "dense", "c_proj", "wo", "output_proj", "attn_out", "output_linear")
_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types that stand for themselves; shorter ones are codes, with a scale beside them."""


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
        f"{', '.join(_NAMES)}, but its parts are {', '.join(sorted(children))}, so its losses "
        f"cannot be measured. Make its profile with Profile.from_importance."
    )


def output_weight(attention: nn.Module, heads: int) -> Tensor:
    """Output projection of one attention module, cut by head.

    No copy where the numbers are in memory as they are. Weights that are quantised, or loaded only
    while they work, are asked for their answers instead, at the price of one product of matrices.

    Args:
        attention: The module.
        heads: Query heads that this process computes.

    Returns:
        [heads, value_dim, hidden]: head h adds `output_h @ weight[h]` to the residual.
    """
    projection = output_projection(attention)
    weight = _readable(projection)
    if weight is None:
        into_hidden = _answered(projection)
    else:
        # a Linear stores [hidden, heads * value_dim]; the Conv1D of GPT-2 stores the transpose
        into_hidden = weight.T if isinstance(projection, nn.Linear) else weight
    by_head: Tensor = into_hidden.unflatten(0, (heads, -1))
    return by_head


def _readable(projection: nn.Module) -> Tensor | None:
    """The weight as it is stored, if its numbers are in memory and mean what they say."""
    weight = dict(projection.named_parameters(recurse=False)).get("weight")
    if weight is None or weight.is_meta:
        return None
    # a weight that is divided over processes has a part here, which is that of our heads
    part: Tensor = getattr(weight, "to_local", weight.detach)().detach()
    return part if type(part) is Tensor and part.dtype in _NUMBERS else None


@torch.no_grad()
def _answered(projection: nn.Module) -> Tensor:
    """Weight of a projection whose numbers cannot be read: its answer to every unit input.

    Returns:
        [inner, hidden].
    """
    stored = [*projection.parameters(), *projection.buffers()]
    # who loads weights while they work moves the inputs to them
    device = torch.device("cpu") if stored[0].is_meta else stored[0].device
    units = torch.eye(_inner_size(projection), dtype=_input_dtype(projection), device=device)
    answer: Tensor = projection(units) - projection(torch.zeros_like(units[:1]))
    return answer


def _inner_size(projection: nn.Module) -> int:
    """Elements of one input; packed weights do not show it in their shape."""
    size = getattr(projection, "in_features", None)
    return len(projection.get_parameter("weight")) if size is None else int(size)


def _input_dtype(projection: nn.Module) -> torch.dtype:
    """Element type of the inputs; packed weights have one of their own."""
    named: torch.dtype | None = getattr(projection, "compute_dtype", None)
    stored = (each.dtype for each in projection.parameters() if each.dtype in _NUMBERS)
    return named or next(stored, torch.get_default_dtype())
