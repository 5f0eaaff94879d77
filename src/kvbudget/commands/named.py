"""What is called by a name on the command line: solvers, heuristics, measures, budgets."""

import difflib
import re
import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING, cast

from kvbudget.allocator import Solver, Tokens, solvers

if TYPE_CHECKING:
    from kvbudget.heuristics import CacheHeuristic, TokenHeuristic
    from kvbudget.heuristics.measures import Measure

_TOKENS = re.compile(r"(\d+)\s*tokens?")


def solver_classes() -> dict[str, type[Solver]]:
    """Every solver under its name: `LinearProgram` is `linear-program`, `LUKV` is `lu-kv`."""
    return {kebab(name): getattr(solvers, name) for name in solvers.__all__}


def kebab(name: str) -> str:
    """Words with hyphens between them: a capital begins one, and so do the end's letters KV."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=.)(?=KV$)", "-", name).lower()


def solver_named(name: str) -> Solver:
    """A solver with its default settings; capitals, hyphens and underscores do not matter.

    Raises:
        ValueError: No solver has that name; the message lists the names.
    """
    classes = solver_classes()
    spelt = {_letters(known): known for known in classes}
    return classes[_known("--solver", spelt.get(_letters(name), name), classes)]()


def token_heuristic_named(name: str) -> "TokenHeuristic":
    """A token heuristic with its default settings.

    Raises:
        ValueError: No token heuristic has that name; the message lists the names.
    """
    from kvbudget import heuristics

    known = _names(heuristics.TokenHeuristic, name)
    return cast("TokenHeuristic", heuristics.build(_known("--heuristic", name, known)))


def cache_heuristic_named(name: str) -> "CacheHeuristic":
    """A cache heuristic with its default settings.

    Raises:
        ValueError: No cache heuristic has that name; the message lists the names.
    """
    from kvbudget import heuristics

    known = _names(heuristics.CacheHeuristic, name)
    return cast("CacheHeuristic", heuristics.build(_known("--importance", name, known)))


def measure_named(name: str) -> "Measure":
    """A measure with its default settings.

    Raises:
        ValueError: No measure has that name; the message lists the names.
    """
    from kvbudget.heuristics import measures

    return measures.build(_known("--measure", name, measures.names()))


def read_budget(text: str) -> int | str | Tokens:
    """A budget as it is typed: `25%`, `2GiB`, `1000000` (bytes) or `256tokens` (mean per cache)."""
    stripped = text.strip()
    if match := _TOKENS.fullmatch(stripped):
        return Tokens(int(match.group(1)))
    return int(stripped) if re.fullmatch(r"-?\d+", stripped) else stripped


def _names(kind: type, wanted: str) -> list[str]:
    """Names of heuristics of a kind, if the wanted one can be used at all."""
    from kvbudget import heuristics

    if wanted in heuristics.names():
        heuristics.get(wanted)
    with warnings.catch_warnings():
        # nobody asked for the ones that cannot be used
        warnings.simplefilter("ignore")
        return heuristics.names(kind)


def _known(option: str, name: str, names: Collection[str]) -> str:
    """Return a name that exists, or say which there are and which one may have been meant."""
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    known = ", ".join(sorted(names))
    raise ValueError(f"`{option}` must be one of {known}, but got {name!r}.{hint}")


def _letters(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).lower()
