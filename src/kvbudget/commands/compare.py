"""`kvbudget compare`: several solvers at several budgets."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    Batch,
    Context,
    EqualInLayer,
    HeadBudget,
    Json,
    LayerBudget,
    LeastTokens,
    MostCapacities,
    MostTokens,
    PageTokens,
    ProfileFile,
    ProtectLayer,
    Risk,
    Solvers,
)

if TYPE_CHECKING:
    from kvbudget.allocator import Comparison


def compare(
    profile: ProfileFile,
    context: Context,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="A budget; give it several times. 10%, 25% and 50% if left out."),
    ] = None,
    solver: Solvers = None,
    batch: Batch = 1,
    risk: Risk = "mean",
    least_tokens: LeastTokens = None,
    most_tokens: MostTokens = None,
    protect_layer: ProtectLayer = None,
    equal_in_layer: EqualInLayer = False,
    page_tokens: PageTokens = None,
    layer_budget: LayerBudget = None,
    head_budget: HeadBudget = None,
    most_capacities: MostCapacities = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw loss against memory into a .png or .svg file.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Compare allocation solvers at several budgets: loss, proven bound, gap, bytes, time.

    The table lists the least loss first. JSON keeps the order that was asked for.

    Example: `kvbudget compare profile.safetensors --context 1024 --budget 10% --budget 25%
    --plot comparison.png`
    """
    import kvbudget as kvb

    from .limits import Limits, read_risk
    from .named import read_budget, solver_classes, solver_named
    from .output import check_can_write, check_picture, print_json, say

    limits = Limits(
        least_tokens=least_tokens,
        most_tokens=most_tokens,
        protect_layer=protect_layer,
        equal_in_layer=equal_in_layer,
        page_tokens=page_tokens,
        layer_budget=layer_budget,
        head_budget=head_budget,
        most_capacities=most_capacities,
    )
    if plot is not None:
        check_can_write(plot, "--plot", [("PROFILE", profile)])
        check_picture(plot, "--plot")
    comparison = kvb.compare(
        kvb.Profile.load(profile),
        budgets=[read_budget(text) for text in budget or ("10%", "25%", "50%")],
        solvers=[solver_named(name) for name in solver or solver_classes()],
        context_tokens=context,
        batch_size=batch,
        constraints=limits.constraints,
        risk=read_risk(risk),
    )
    if not solver:
        comparison = _of_able(comparison)
    if plot is not None:
        comparison.plot(plot)
        say(f"Wrote {plot}.")
    _check_any_plan(comparison)
    if json:
        print_json(comparison.to_records())
    else:
        typer.echo(str(comparison.best_first()))


def _check_any_plan(comparison: "Comparison") -> None:
    """Refuse budgets of which not even the largest has a plan."""
    from kvbudget.allocator import InfeasibleBudget, Status

    rows = comparison.rows
    if rows and all(row.status is Status.INFEASIBLE for row in rows):
        raise InfeasibleBudget(max(rows, key=lambda row: row.budget_bytes).note)


def _of_able(comparison: "Comparison") -> "Comparison":
    """The rows of solvers that honour what was asked, where nobody asked for the others."""
    from .output import say

    others = dict.fromkeys(row.solver for row in comparison.rows if row.status is None)
    if others:
        say(f"Left out, as they cannot honour the constraints or the risk: {', '.join(others)}.")
    return replace(comparison, rows=tuple(row for row in comparison.rows if row.status is not None))
