"""What is called by a name on the command line: solvers, heuristics, measures, budgets."""

import difflib
import os
import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kvbudget.allocator import Solver, Tokens, solvers
from kvbudget.allocator.budget import PATTERN, UNITS

from .output import say

if TYPE_CHECKING:
    from kvbudget.heuristics import CacheHeuristic, TokenHeuristic
    from kvbudget.heuristics.measures import Measure

PUBLISHED = {
    "compactor": "leverage",
    "duoattention": "passkey_heads",
    "ems": "global_local",
    "h2o": "heavy_hitter",
    "razorattention": "retrieval_heads",
    "snapkv": "observation_window",
    "squeezeattention": "residual_change",
    "streamingllm": "sink_recent",
    "vatp": "value_mass",
}
"""Names under which a heuristic is known elsewhere, without hyphens."""
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


def read_budget(text: str, option: str = "--budget") -> int | str | Tokens:
    """A budget as it is typed: `25%`, `2GiB`, `1000000` (bytes) or `256tokens` (mean per cache).

    Args:
        text: What was typed.
        option: The option it was typed for.

    Raises:
        ValueError: It is none of these, or no token.
    """
    stripped = text.strip()
    if match := _TOKENS.fullmatch(stripped):
        if int(match.group(1)) < 1:
            raise ValueError(f"`{option}` must be at least 1 token, but got {text!r:.60}.")
        return Tokens(int(match.group(1)))
    if re.fullmatch(r"-?\d+", stripped):
        return int(stripped)
    match = PATTERN.fullmatch(stripped)
    if match is None or match[2].upper() not in ("%", *UNITS):
        raise ValueError(
            "`budget` must be a number with a unit, such as 25%, 2GiB, 512MiB or 256tokens (mean "
            f"per cache), or bytes as a plain number, such as 1000000, but got {text!r:.60}."
        )
    return stripped


def model_given(source: str | None) -> str | None:
    """Refuse a model that can be nowhere, and say where one is looked for, before any work.

    Args:
        source: What was typed; a name of the hub has one slash, as a folder in a folder has.

    Raises:
        ValueError: It is empty, or a folder that does not exist.
    """
    if source is not None and not source.strip():
        raise ValueError(
            "`--model` must name a model's folder or a model on the Hugging Face hub, but is "
            "empty. Leave it out for the shipped model."
        )
    if source is None or Path(source).exists():
        return source
    in_a_folder = len(Path(source).parts) > 1 and Path(source).parent.is_dir()
    if in_a_folder or source.startswith((".", "~", os.sep)):
        raise ValueError(f"There is no folder {source}. Give a folder, or a model's name.")
    if "/" in source and not _is_cached(source):
        say(f"There is no folder {source} here. Asking the Hugging Face hub for that name.")
    return source


def _is_cached(model: str) -> bool:
    """Whether a model of the hub is on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except HFValidationError:
        return True  # no name that the hub would be asked for


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
    published = PUBLISHED.get(_letters(name))
    close = difflib.get_close_matches(name, names, n=1)
    if published is not None and published in names:
        close = [published]
    hint = f" Did you mean {close[0]!r}?" if close else ""
    known = ", ".join(sorted(names))
    raise ValueError(f"`{option}` must be one of {known}, but got {name!r}.{hint}")


def _letters(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).lower()
