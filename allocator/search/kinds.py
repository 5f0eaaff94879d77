"""Checks of what a search is given, before anything is measured."""

from kvbudget.allocator.problem import Problem


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse a field that is not an object of a kind.

    Raises:
        TypeError: If it is a class, a name, or anything else.
    """
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be an object of {kind.__name__}, but got {value!r:.60}.")


def check_objective(objective: object) -> None:
    """Refuse an objective that cannot be called; ``None`` stands for the predicted loss.

    Raises:
        TypeError: If it is a name, a number, or anything else.
    """
    if objective is not None and not callable(objective):
        raise TypeError(
            "`objective` must be a function from a plan to a number, or None for the predicted"
            f" loss, but got {objective!r:.60}. Pass the function itself."
        )


def check_problem(problem: object) -> None:
    """Refuse something else in the place of a problem.

    Raises:
        TypeError: If it is a profile, a search, or anything else.
    """
    if not isinstance(problem, Problem):
        raise TypeError(
            f"`problem` must be a Problem, but got {problem!r:.60}. Make it with"
            " Problem.from_profile and pass it first, the search second."
        )


def check_search(search: object) -> None:
    """Refuse something else in the place of a search.

    Raises:
        TypeError: If it is another solver, a class, or anything else.
    """
    # that module needs this one
    from kvbudget.allocator.solvers.optuna_search import OptunaSearch

    if not isinstance(search, OptunaSearch):
        raise TypeError(
            f"`search` must be an OptunaSearch object, but got {search!r:.60}."
            " Pass OptunaSearch(objective=...); solve() takes every other solver."
        )
