"""`kvbudget report`: a plan as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Json


def report(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A file that `kvbudget allocate` wrote.")
    ],
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The profile behind the plan: adds how much single prompts lose, and the losses "
            "where an older plan holds none.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the page; ends in .html.")] = Path(
        "report.html"
    ),
    json: Json = False,
) -> None:
    """Show a plan as one HTML page that opens without a server: every budget can be tried in it.

    A slider moves the budget; the page redraws what each cache keeps, the predicted loss, the
    proven bound, and the bytes for any context and batch size, as `kvbudget allocate` would.

    Example: `kvbudget report plan.json --profile profile.safetensors --out report.html`
    """
    import kvbudget as kvb
    from kvbudget.report.page import check_ending, save_report

    from .output import check_can_write, print_json, say

    check_can_write(out)
    check_ending(out, "--out")
    check_can_write(out, inputs=[("PLAN", plan), ("`--profile`", profile)])
    names = {} if profile is None else {"profile_name": profile.name}
    save_report(
        kvb.Plan.load(plan),
        out,
        profile=None if profile is None else kvb.Profile.load(profile),
        plan_name=plan.name,
        **names,
    )
    say(f"Wrote {out}.")
    if json:
        print_json({"out": str(out), "bytes": out.stat().st_size})
    else:
        typer.echo(f"Open {out.absolute().as_uri()} in a browser.")
