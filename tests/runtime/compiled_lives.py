"""What compiled and eager forwards of one model are compared by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import PreTrainedModel

from kvbudget.allocator import Plan
from kvbudget.heuristics import ObservationWindow, TokenHeuristic
from kvbudget.runtime import budgeted

PROMPT = torch.randint(3, 90, (1, 30), generator=torch.Generator().manual_seed(3))
STEPS = 45  # several evictions: a tail has at most 32 slots, here 4 to 8
HEURISTIC = ObservationWindow(window=8, kernel=3)

Call = Callable[..., object]


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@contextmanager
def compiled_in_place(model: PreTrainedModel, **options: object) -> Iterator[None]:
    model.forward = torch.compile(model.forward, **{"backend": "eager", **options})
    yield
    del model.forward


@dataclass
class Life:
    """What a cache did: the logits of every token, and what it holds at the end."""

    logits: Tensor
    kept: list[Tensor]

    def assert_equals(self, other: "Life", tolerance: float = 0.0) -> None:
        torch.testing.assert_close(self.logits, other.logits, atol=tolerance, rtol=0)
        assert len(self.kept) == len(other.kept)
        assert all(torch.equal(*pair) for pair in zip(self.kept, other.kept, strict=True))


def kept(cache) -> list[Tensor]:
    each = range(len(cache.stack.layers))
    return [held for at in each for row in cache.kept_positions(at) for held in row]


def lived(
    model: PreTrainedModel,
    plan: Plan,
    call: Call | None = None,
    heuristic: TokenHeuristic = HEURISTIC,
    prompt: Tensor = PROMPT,
    steps: int = STEPS,
    **options: object,
) -> Life:
    """Read a prompt, and then the tokens that the model likes best."""
    call, seen = model if call is None else call, []
    with torch.no_grad(), budgeted(model, plan, heuristic, **options) as cache:
        logits = model(prompt, past_key_values=cache).logits[:, -1]
        for _ in range(steps):
            logits = call(logits.argmax(-1)[:, None], past_key_values=cache).logits[:, -1].clone()
            seen.append(logits)
        return Life(torch.stack(seen), kept(cache))
