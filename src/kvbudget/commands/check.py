"""`kvbudget check`: run plans and see whether a profile told the truth."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Model, ProfileFile, SampleContext, Text
from .sample import Sample

if TYPE_CHECKING:
    from kvbudget.allocator import ProfileCheck

FRESH = 500_000


def check(
    profile: ProfileFile,
    model: Model = None,
    text: Text = None,
    context: SampleContext = 1024,
    samples: Annotated[int, typer.Option(min=1, help="Contexts to run every plan on.")] = 4,
    plans: Annotated[
        int, typer.Option(min=2, help="Plans to run, half of them solved, half drawn at random.")
    ] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the profile with the outcome; over the old one by default.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run plans of 5 % of the memory and more, and compare their losses with the predicted ones.

    Give a text that the profile was not measured on. Every plan made from the profile afterwards
    shows the outcome.

    Example: `kvbudget check profile.safetensors --model path/to/model --text others.txt`
    """
    import kvbudget as kvb
    from kvbudget.model_source import check_model_given, load_model, model_name

    from .output import Input, check_can_write, print_json, say

    target = out or profile
    text_and_model: list[Input] = [("`--text`", text), ("`--model`", model)]
    # the profile itself may be named: it is what the outcome is written into
    check_can_write(target, inputs=text_and_model if target.resolve() != profile.resolve() else ())
    measured = kvb.Profile.load(profile)
    check_model_given(model, measured.model, "profile")
    loaded, tokenizer = load_model(model)
    sample = Sample(text, context, samples)
    sample.check_length(loaded)
    checked = kvb.check_profile(
        loaded,
        replace(measured, model=measured.model or model_name(model)),
        sample.prompts(tokenizer, FRESH),
        plans=plans,
        future_tokens=sample.future_tokens,
    )
    checked.save(target)
    say(f"Wrote {target}.")
    found = checked.check
    assert found is not None, "check_profile stores one"
    if json:
        print_json(_record(found, target))
    else:
        typer.echo(str(checked))


def _record(found: "ProfileCheck", out: Path) -> dict[str, object]:
    return {
        "out": str(out),
        **found.to_json(),
        "spearman": found.spearman,
        "slope": found.slope,
        "within_two": found.within_two,
        "worst": found.worst,
    }
