"""Work shared out over the processes that torch.distributed has brought together.

    torchrun --nproc-per-node 2 script.py

starts a script twice. Where it calls `torch.distributed.init_process_group()` before it measures,
each process measures its share of the prompts, and all of them get the whole result.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

from kvbudget.allocator import KVBudgetError

T = TypeVar("T")
ANSWER, FAILURE = "answer", "failure"


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that share the work.

    Args:
        rank: Number of this process, from 0.
        size: Number of processes; 1 without torch.distributed.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """The processes of the default group, or this one alone."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    def share(self, items: Sequence[T]) -> list[T]:
        """This process' part of a list that is the same in all of them."""
        return list(items[self.rank :: self.size])

    def gather(self, work: Callable[[], T]) -> list[T]:
        """Do work in every process; all of them get all answers, or an error.

        A process that fails would otherwise leave the others waiting for it.

        Args:
            work: Its answer is of JSON types, which is how it travels.

        Returns:
            Answers in the order of the ranks.

        Raises:
            KVBudgetError: The work failed in another process; says in which and why.
        """
        try:
            answer = work()
        except Exception as error:
            self._exchange({FAILURE: f"{type(error).__name__}: {error}"})
            raise
        found = self._exchange({ANSWER: answer})
        for rank, each in enumerate(found):
            if FAILURE in each:
                raise KVBudgetError(f"The process of rank {rank} failed: {each[FAILURE]}")
        return [each[ANSWER] for each in found]

    def _exchange(self, mine: dict[str, T]) -> list[dict[str, T]]:
        if self.size == 1:
            return [mine]
        raw = torch.frombuffer(bytearray(json.dumps(mine).encode()), dtype=torch.uint8)
        lengths = [int(length) for length in self._gathered(torch.tensor([len(raw)]))]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(raw)] = raw
        return [
            json.loads(bytes(message[:length].tolist()))
            for message, length in zip(self._gathered(padded), lengths, strict=True)
        ]

    def _gathered(self, mine: Tensor) -> list[Tensor]:
        """Tensors of one shape from all processes, on the CPU."""
        here = mine.cuda() if distributed.get_backend() == "nccl" else mine
        found = [torch.empty_like(here) for _ in range(self.size)]
        distributed.all_gather(found, here)
        return [each.cpu() for each in found]
