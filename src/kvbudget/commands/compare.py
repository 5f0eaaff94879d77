"""`kvbudget compare`: several solvers at several budgets."""

from typing import Annotated

import typer

from .options import Batch, Context, Json, ProfileFile


def compare(
    profile: ProfileFile,
    context: Context,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="A budget; give it several times. 10%, 25% and 50% if left out."),
    ] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(help="A solver's name; give it several times. All if left out."),
    ] = None,
    batch: Batch = 1,
    json: Json = False,
) -> None:
    """Compare allocation solvers at several budgets: loss, proven bound, gap, bytes, time.

    Example: `kvbudget compare profile.safetensors --context 1024 --budget 10% --budget 25%`
    """
    import kvbudget as kvb

    from .named import read_budget, solver_classes, solver_named
    from .output import print_json

    solvers = [solver_named(name) for name in solver or solver_classes()]
    comparison = kvb.compare(
        kvb.Profile.load(profile),
        budgets=[read_budget(text) for text in budget or ("10%", "25%", "50%")],
        solvers=solvers,
        context_tokens=context,
        batch_size=batch,
    )
    if json:
        print_json(comparison.to_records())
    else:
        typer.echo(str(comparison))
