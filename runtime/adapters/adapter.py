"""What all adapters share: the parts of the module they stand in for, and its attention call."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

from torch import Tensor, nn

from ..output_projection import Borrowed
from .masks import causal


class Attend(Protocol):
    """The attention function that a model is sent to."""

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        dropout: float,
        scaling: float,
        slopes: Tensor | None,
        position_bias: Tensor | None,
        sliding_window: int | None,
    ) -> tuple[Tensor, None]:
        """Attention output, [batch, new, heads, value_dim], and nothing."""


class Adapter(nn.Module, ABC):
    """Stands in for an attention module, with the very same parts under the same names.

    It projects, rotates and stores as the module does, but leaves the attention to a function.
    Forward hooks of the module itself rest meanwhile; those of its parts work.

    Args:
        original: The module.
        attend: The attention function.
    """

    def __init__(self, original: nn.Module, attend: Attend) -> None:
        super().__init__()
        # not a part: names of parameters must stay as they are
        self._original, self._attend = Borrowed(original), attend
        for name, part in original.named_children():
            self.add_module(name, part)
        for name, parameter in original.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in original.named_buffers(recurse=False):
            self.register_buffer(name, buffer, persistent=False)
        self.training = original.training

    @property
    def original(self) -> Any:
        """The module that it stands in for."""
        return self._original.module

    @property
    def parts(self) -> Any:
        """Itself, to get at parts by the names that the module has for them."""
        return self

    @abstractmethod
    def forward(self, *inputs: Any, **keywords: Any) -> tuple[Any, ...]:
        """What the module returns, None in place of the weights."""

    def attention(
        self,
        stored: tuple[Tensor, Tensor, Tensor],
        cache: Any,
        mask: Tensor | None,
        *,
        scaling: float,
        dropout: float = 0.0,
        slopes: Tensor | None = None,
        bias: Tensor | None = None,
        window: int | None = None,
    ) -> Tensor:
        """Store keys and values, attend, and put the heads side by side.

        Args:
            stored: Queries, keys and values of the new tokens, [batch, heads, new, dim], rotated.
            cache: The model's cache, or None.
            mask: As `AttentionCall` has it, or what flash attention gets: which columns are no
                padding, [batch, columns].
            scaling: Factor on the products of queries and keys.
            dropout: Share of the weights that training drops.
            slopes: Added to a logit for each position that its key is newer, [heads].
            bias: Added to the logits, [batch or 1, heads, new, columns].
            window: Sliding window in tokens, None for full attention.

        Returns:
            [batch, new, heads * value_dim].
        """
        queries, keys, values = stored
        if cache is not None:
            keys, values = cache.update(keys, values, self.layer)
        output, _ = self._attend(
            self.original,
            queries,
            keys,
            values,
            causal(mask, queries.shape[2]),
            dropout=dropout if self.training else 0.0,
            scaling=scaling,
            slopes=slopes,
            position_bias=bias,
            sliding_window=window,
        )
        return output.flatten(2)

    @property
    def layer(self) -> int:
        """Number of the layer in the cache."""
        number: int = self.original.layer_idx
        return number


def heads_apart(projected: Tensor, heads: int) -> Tensor:
    """[batch, new, heads * dim] as [batch, heads, new, dim]."""
    apart: Tensor = projected.unflatten(-1, (heads, -1)).transpose(1, 2)
    return apart
