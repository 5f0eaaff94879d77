"""One entry for all budgets at once."""

from .constraint import Constraint
from .path import Path
from .problem import Problem
from .profile import Profile

NOMINAL_TOKENS = 32_768
"""Context of a path for which no other is given."""


def solve_path(
    source: Profile | Problem,
    *,
    context_tokens: int | None = None,
    batch_size: int = 1,
    constraints: tuple[Constraint, ...] = (),
) -> Path:
    """Solve every budget at once.

    Losses are measured over the kept share of a context, so the frontier in shares is nearly the
    same for every length; ``path.at(tokens)`` makes it exact for another one.

    Args:
        source: Measured losses; or a problem, whose budget does not matter and which brings its
            own context, batch size and constraints.
        context_tokens: Longest context to plan for, in tokens; 32,768 if ``None``.
        batch_size: Sequences that share the budget.
        constraints: Further limits that do not couple caches, from ``kvbudget.constraints``.

    Raises:
        InfeasibleBudget: If the constraints leave a cache no level.
        TypeError: If an argument has the wrong type.
        ValueError: If a count is below 1, a constraint couples caches or does not fit the model,
            the problem's risk is not the mean, or a problem comes with further arguments.
    """
    if not isinstance(source, Profile | Problem):
        raise TypeError(
            f"`source` must be a Profile or a Problem, but got a {type(source).__name__}."
        )
    if isinstance(source, Profile):
        source = Problem.from_profile(
            source,
            budget="100%",
            context_tokens=NOMINAL_TOKENS if context_tokens is None else context_tokens,
            batch_size=batch_size,
            constraints=constraints,
        )
    elif context_tokens is not None or batch_size != 1 or constraints:
        raise ValueError(
            "`context_tokens`, `batch_size` and `constraints` must be left out for a Problem,"
            " which has its own. Give them to Problem.from_profile."
        )
    return Path.of(source)
