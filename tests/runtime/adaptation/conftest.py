"""Random prompts: scores with ties and holes, unequal capacities, every division of few places."""

from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch

from kvbudget.runtime.adaptation import LayerScores
from kvbudget.runtime.adaptation.expected import Expected


def random_layer(
    seed: int, batch: int = 1, most: int = 6, protected: bool = False, known: bool = True
) -> LayerScores:
    """One layer with up to 3 heads and `most` tokens; `known` is whether there are curves."""
    generator = torch.Generator().manual_seed(seed)

    def below(end: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, end, shape, generator=generator)

    shape = (batch, 1 + int(below(3)), 1 + int(below(most)))
    scores = torch.randn(shape, generator=generator) * (0.5, 2.0, 50.0)[int(below(3))]
    return LayerScores(
        scores=scores.round() if bool(below(2)) else scores,
        reach=torch.rand(shape, generator=generator) < (0.5, 0.9, 1.0)[int(below(3))],
        capacity_tokens=below(shape[2] + 2, 1, shape[1]),
        expected=random_curves(generator, shape[1], shape[2]) if known else None,
        sinks=int(below(3)) if protected else 0,
        recent=int(below(4)) if protected else 0,
    )


def random_curves(generator: torch.Generator, heads: int, tokens: int) -> Expected:
    """Curves of three steps, some of which may hold no token."""
    ends = torch.randint(1, tokens + 2, (heads, 3), generator=generator)
    savings = torch.rand(heads, 3, generator=generator, dtype=torch.float64)
    return Expected(ends.sort(dim=1).values, savings.sort(dim=1, descending=True).values)


@pytest.fixture(scope="session")
def layer_of() -> Callable[..., LayerScores]:
    """Builds a random layer from a seed."""
    return random_layer


@pytest.fixture(scope="session")
def divisions() -> Callable[[torch.Tensor, torch.Tensor], Iterator[tuple[int, ...]]]:
    """Lists every way to give each cache a number between its limits."""

    def every(low: torch.Tensor, high: torch.Tensor) -> Iterator[tuple[int, ...]]:
        limits = zip(low.tolist(), high.tolist(), strict=True)
        return product(*(range(least, most + 1) for least, most in limits))

    return every
