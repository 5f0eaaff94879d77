"""`kvbudget draw`: pictures of plans and profiles."""

from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json

if TYPE_CHECKING:
    from kvbudget.allocator import Plan, Profile
    from kvbudget.pictures import Picture

BUDGETS = ("5%", "10%", "25%", "50%", "75%")
CONTEXT_TOKENS = 1024


class What(StrEnum):
    """What can be drawn."""

    PLAN = "plan"
    CURVES = "curves"
    FRONTIER = "frontier"
    CHECK = "check"


def draw(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A plan (.json) or a profile (.safetensors) of `kvbudget`."
        ),
    ],
    what: Annotated[
        What | None,
        typer.Option(
            help="What to draw: the tokens each cache keeps (`plan`), losses and hulls of single "
            "caches (`curves`), loss over memory with what no plan can beat (`frontier`), or "
            "predicted against measured loss (`check`). A plan's tokens or a profile's curves, if "
            "left out.",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            "--context-tokens",
            min=1,
            metavar="TOKENS",
            help=f"Context of the frontier; that of the plan if left out, {CONTEXT_TOKENS} for a "
            "profile.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where to write the picture; ends in .png or .svg.")
    ] = Path("picture.png"),
    json: Json = False,
) -> None:
    """Draw a plan or a profile, and say in words what is to be seen.

    The words are in the file too, and serve as alternative text on a page.

    Example: `kvbudget draw plan.json --out plan.png`

    Example: `kvbudget draw profile.safetensors --what frontier --context 32768 --out loss.svg`
    """
    from .output import check_can_write, check_picture, print_json, say

    check_can_write(out)
    check_picture(out, "--out")
    check_can_write(out, inputs=[("FILE", file)])
    if context is not None and what is not What.FRONTIER:
        raise ValueError("`--context` must come with `--what frontier`; leave it out.")
    picture = _picture(file, what, context)
    picture.save(out)
    say(f"Wrote {out}.")
    if json:
        print_json({"out": str(out), "title": picture.title, "description": str(picture)})
    else:
        typer.echo(str(picture))


def _picture(file: Path, what: What | None, context: int | None) -> "Picture":
    import kvbudget as kvb

    plan = kvb.Plan.load(file) if file.suffix.lower() == ".json" else None
    if what in (None, What.PLAN) and plan is not None:
        return kvb.pictures.draw_plan(plan)
    if what is What.PLAN:
        raise ValueError(f"`--what plan` must come with a plan, but {file} is read as a profile.")
    profile = kvb.Profile.load(file) if plan is None else _profile_of(plan)
    if what is What.FRONTIER:
        return _frontier(profile, plan, context)
    if what is What.CHECK:
        return _check(profile, file)
    return kvb.pictures.draw_curves(profile)


def _profile_of(plan: "Plan") -> "Profile":
    """What a plan remembers of its profile."""
    if plan.curves is None:
        raise ValueError(
            "`--what` must be plan for a plan without curves: it was made by hand, by an older "
            "version, for a risk, or with a constraint that files cannot hold. Name the profile."
        )
    return plan.curves.profile(plan)


def _frontier(profile: "Profile", plan: "Plan | None", context: int | None) -> "Picture":
    """The frontier with equal shares and the solved division beside it, within a plan's limits."""
    import kvbudget as kvb

    context_tokens = context or (CONTEXT_TOKENS if plan is None else plan.context_tokens)
    batch_size = 1 if plan is None else plan.batch_size
    limits = () if plan is None or plan.curves is None else plan.curves.constraints
    path = kvb.solve_path(
        profile, context_tokens=context_tokens, batch_size=batch_size, constraints=limits
    )
    budgets = [each for each in BUDGETS if isfinite(path.loss_at(each))]
    if not budgets:
        return kvb.pictures.draw_frontier(path)
    comparison = kvb.compare(
        profile,
        budgets=budgets,
        solvers=[kvb.solvers.Uniform(), kvb.solvers.Hull()],
        context_tokens=context_tokens,
        batch_size=batch_size,
        constraints=limits,
    )
    return kvb.pictures.draw_frontier(path, comparison)


def _check(profile: "Profile", file: Path) -> "Picture":
    import kvbudget as kvb

    if profile.check is None:
        raise ValueError(
            f"{file} must hold a check to draw, but nobody looked yet. Run `kvbudget check`."
        )
    return kvb.pictures.draw_check(profile.check, model=profile.model)
