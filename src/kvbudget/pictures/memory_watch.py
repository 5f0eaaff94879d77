"""Take down what a cache holds while a model generates."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from .memory_trace import MemoryTrace


class MemoryWatch(StoppingCriteria):
    """Reads the bytes of a cache after every step of a generation, and never stops it.

        with kvbudget.budgeted(model, plan) as cache:
            watch = kvbudget.pictures.MemoryWatch(cache.nbytes)
            model.generate(**inputs, past_key_values=cache, stopping_criteria=[watch])
        kvbudget.pictures.draw_memory(watch.trace("25%", plan.budget_bytes)).save("memory.png")

    Args:
        nbytes: Called without arguments, gives the bytes that are held.
    """

    def __init__(self, nbytes: Callable[[], int]) -> None:
        self._nbytes = nbytes
        self._tokens: list[int] = []
        self._held_bytes: list[int] = []

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: object) -> Any:
        """Take down one step.

        Args:
            input_ids: The tokens so far, [batch, tokens], the newest of which nothing has read.
            scores: Not needed.
            kwargs: Not needed.

        Returns:
            Whether to stop, bool [batch]: no.
        """
        self._tokens.append(input_ids.shape[1] - 1)
        self._held_bytes.append(self._nbytes())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def trace(self, name: str, budget_bytes: int | None = None) -> MemoryTrace:
        """What was taken down.

        Args:
            name: What to call the cache.
            budget_bytes: What it was allowed; None if there was no limit.

        Raises:
            ValueError: If nothing has been generated yet.
        """
        if not self._tokens:
            raise ValueError(
                "The watch must have seen a generation, but saw none. Pass it to generate:"
                " stopping_criteria=[watch]."
            )
        return MemoryTrace(name, tuple(self._tokens), tuple(self._held_bytes), budget_bytes)
