"""Constraints as the page can apply them to the menu of any context."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from kvbudget.allocator import Constraint, Problem
from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.caches import Indices, select
from kvbudget.allocator.constraints import (
    EqualInLayer,
    LeastTokens,
    MostTokens,
    Protected,
    WholePages,
)
from kvbudget.allocator.reduction import number
from kvbudget.allocator.terms import terms_of

NO_LIMIT = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Rules:
    """What constraints that do not couple caches ask of every menu; ``None`` asks for nothing.

    Args:
        page_tokens: Tokens of a page; 1 where memory is not handed out in pages.
        least_tokens: Least capacity of each cache, [caches].
        most_tokens: Most capacity of each cache, [caches].
        protected: Whether a cache keeps everything, [caches].
        group: Caches with the same number keep the same share, [caches].
    """

    page_tokens: int = 1
    least_tokens: list[int] | None = None
    most_tokens: list[int] | None = None
    protected: list[bool] | None = None
    group: list[int] | None = None

    def to_json(self) -> dict[str, object]:
        """The fields as JSON types."""
        return asdict(self)


def rules_of(problem: Problem) -> Rules:
    """The rules of a problem that was made from a profile and that couples no caches."""
    kinds = problem.constraints
    least = [each for each in kinds if isinstance(each, LeastTokens)]
    most = [each for each in kinds if isinstance(each, MostTokens)]
    kept = [each for each in kinds if isinstance(each, Protected)]
    masks = [select(problem, each.layers, each.kv_heads) for each in kept]
    group = terms_of(problem).group
    return Rules(
        page_tokens=1 if problem.origin is None else problem.origin.page_tokens,
        least_tokens=strictest(problem, least, np.maximum, 1),
        most_tokens=strictest(problem, most, np.minimum, NO_LIMIT),
        protected=np.logical_or.reduce(masks).tolist() if masks else None,
        group=None if group is None else number(group).tolist(),
    )


def strictest(
    problem: Problem, limits: Sequence[LeastTokens | MostTokens], pick: np.ufunc, free: int
) -> list[int] | None:
    """The strictest of several limits for each cache, [caches]; ``None`` if there are none.

    Args:
        problem: Whose caches they are.
        limits: Constraints of one kind.
        pick: ``np.maximum`` or ``np.minimum``: which of two is stricter.
        free: What asks for nothing.
    """
    if not limits:
        return None
    strict: Ints = np.full(len(problem.loss), free, dtype=np.int64)
    for each in limits:
        chosen = select(problem, each.layers, each.kv_heads)
        strict[chosen] = pick(strict[chosen], min(each.tokens, NO_LIMIT))
    return list(map(int, strict))


def command_options(constraints: tuple[Constraint, ...]) -> str | None:
    """The options of `kvbudget allocate` for constraints, or ``None`` where it has none."""
    options = [option_of(each) for each in constraints]
    return None if None in options else "".join(f" {each}" for each in options)


def option_of(constraint: Constraint) -> str | None:
    """One constraint as options of the command line."""
    match constraint:
        case LeastTokens(tokens, None, None):
            return f"--least-tokens {tokens}"
        case MostTokens(tokens, None, None):
            return f"--most-tokens {tokens}"
        case EqualInLayer(None):
            return "--equal-in-layer"
        case WholePages(tokens):
            return f"--page-tokens {tokens}"
        case Protected(layers, None):
            return protect(layers)
        case _:
            return None


def protect(layers: Indices) -> str:
    """Options that protect layers; there always are some where no KV heads are named."""
    return " ".join(f"--protect-layer {layer}" for layer in layers or ())
