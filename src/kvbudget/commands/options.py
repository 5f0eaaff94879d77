"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from .named import model_given, solver_classes
from .sample import LEAST_CONTEXT

SOLVER_NAMES = ", ".join(sorted(solver_classes()))
_CONSTRAINTS = "Constraints"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PATH_OR_ID",
        callback=model_given,
        help="A model's folder or its name on the Hugging Face hub. The shipped model if left out.",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON alone on standard output, for programs.")
]
Context = Annotated[
    int,
    typer.Option(
        "--context",
        "--context-tokens",
        min=1,
        metavar="TOKENS",
        help="Longest context the plan must hold, in tokens.",
    ),
]
SampleContext = Annotated[
    int,
    typer.Option(
        "--context",
        "--context-tokens",
        min=LEAST_CONTEXT,
        metavar="TOKENS",
        help="Length of each context in tokens.",
    ),
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch", "--batch-size", min=1, help="Sequences that are held at the same time."
    ),
]
ProfileFile = Annotated[
    Path,
    typer.Argument(metavar="PROFILE", help="A file that `kvbudget profile` wrote."),
]
Text = Annotated[
    Path | None,
    typer.Option(
        "--text",
        metavar="FILE",
        help="UTF-8 text to measure on, like what the model will read. "
        "Python's own reference with facts to find in it, if left out.",
        show_default=False,
    ),
]
Solver = Annotated[
    str,
    typer.Option(metavar="NAME", help=f"How to divide: {SOLVER_NAMES}."),
]
Solvers = Annotated[
    list[str] | None,
    typer.Option(
        "--solver",
        metavar="NAME",
        help="A solver's name; give it several times. If left out, all that honour the "
        f"constraints and the risk: {SOLVER_NAMES}.",
        show_default=False,
    ),
]
Risk = Annotated[
    str,
    typer.Option(
        metavar="RISK",
        help="Which of the measured prompts to plan for: `mean`, `worst`, or `cvar:0.9`, the mean "
        "of the tenth that loses most.",
    ),
]
LeastTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Each cache keeps at least so many tokens.",
        rich_help_panel=_CONSTRAINTS,
        show_default=False,
    ),
]
MostTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Each cache keeps at most so many tokens.",
        rich_help_panel=_CONSTRAINTS,
        show_default=False,
    ),
]
ProtectLayer = Annotated[
    list[int] | None,
    typer.Option(
        min=0,
        metavar="LAYER",
        help="A layer that is never cut, counted from 0; give it several times.",
        rich_help_panel=_CONSTRAINTS,
        show_default=False,
    ),
]
EqualInLayer = Annotated[
    bool,
    typer.Option(
        "--equal-in-layer",
        help="All KV heads of a layer keep equally many tokens.",
        rich_help_panel=_CONSTRAINTS,
    ),
]
PageTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Memory is handed out in pages of so many tokens.",
        rich_help_panel=_CONSTRAINTS,
        show_default=False,
    ),
]
LayerBudget = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYERS=BUDGET",
        help="What some layers may use together, such as those of one device: `0-15=2GiB`, or "
        "`0,1,30=50%` of their full cache; give it several times.",
        rich_help_panel=_CONSTRAINTS,
        show_default=False,
    ),
]
HeadBudget = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HEADS=BUDGET",
        help="What some KV heads of all layers may use together, such as those of one "
        "tensor-parallel rank: `0-1=1GiB`; give it several times.",
        rich_help_panel=_CONSTRAINTS,
        show_default=False,
    ),
]
MostCapacities = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="At most so many different capacities among all caches.",
        rich_help_panel=_CONSTRAINTS,
        show_default=False,
    ),
]
