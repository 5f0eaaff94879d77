"""`kvbudget allocate`: divide a budget."""

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
    Solver,
)

if TYPE_CHECKING:
    from kvbudget.allocator import Plan


def allocate(
    profile: ProfileFile,
    budget: Annotated[
        str,
        typer.Option(
            help="Memory for all caches together: `25%` of the full cache, `2GiB`, bytes as a "
            "plain number, or `256tokens` (mean per cache)."
        ),
    ],
    context: Context,
    batch: Batch = 1,
    solver: Solver = "hull",
    risk: Risk = "mean",
    least_tokens: LeastTokens = None,
    most_tokens: MostTokens = None,
    protect_layer: ProtectLayer = None,
    equal_in_layer: EqualInLayer = False,
    page_tokens: PageTokens = None,
    layer_budget: LayerBudget = None,
    head_budget: HeadBudget = None,
    most_capacities: MostCapacities = None,
    out: Annotated[Path, typer.Option(help="Where to write the plan.")] = Path("plan.json"),
    json: Json = False,
) -> None:
    """Divide a memory budget over the caches of a measured model; takes milliseconds, no GPU.

    A solver that cannot honour a constraint or the risk is refused, and those that can are named.

    Example: `kvbudget allocate profile.safetensors --budget 25% --context 1024 --out plan.json`

    Example: `kvbudget allocate profile.safetensors --budget 4GiB --context 32768
    --solver linear-program --layer-budget 0-15=2GiB --layer-budget 16-31=2GiB`
    """
    import kvbudget as kvb

    from .limits import Limits, read_risk
    from .named import read_budget, solver_named
    from .output import check_can_write, print_json, say

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
    chosen = solver_named(solver)
    check_can_write(out, inputs=[("PROFILE", profile)])
    plan = kvb.allocate(
        kvb.Profile.load(profile),
        budget=read_budget(budget),
        context_tokens=context,
        batch_size=batch,
        solver=chosen,
        constraints=limits.constraints,
        risk=read_risk(risk),
    )
    plan.save(out)
    say(f"Wrote {out}.")
    if json:
        print_json(_record(plan, out))
    else:
        typer.echo(str(plan))


def _record(plan: "Plan", out: Path) -> dict[str, object]:
    return {
        "out": str(out),
        "solver": plan.certificate.solver,
        "status": plan.certificate.status,
        "budget_bytes": plan.budget_bytes,
        "used_bytes": plan.used_bytes,
        "full_bytes": plan.geometry.full_bytes(plan.context_tokens, plan.batch_size),
        "loss": plan.loss,
        "bound": plan.bound,
        "gap": plan.gap,
        "context_tokens": plan.context_tokens,
        "batch_size": plan.batch_size,
        "risk": plan.certificate.risk,
        "constraints": list(plan.certificate.constraints),
        "capacity_tokens": plan.capacity_tokens.tolist(),
    }
