"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PATH_OR_ID",
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
