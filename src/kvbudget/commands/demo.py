"""`kvbudget demo`: the main job, on the shipped model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Model, Text

if TYPE_CHECKING:
    from kvbudget.demo.run import DemoResult

PROFILE_FILE, PLAN_FILE, PICTURE_FILE = "profile.safetensors", "plan.json", "plan.png"


def demo(
    model: Model = None,
    text: Text = None,
    out: Annotated[Path, typer.Option(help="Folder for the profile, plan and picture.")] = Path(
        "kvbudget-demo"
    ),
    json: Json = False,
) -> None:
    """See the whole of it at work: measure, allocate, generate; about a minute.

    Divides 10, 25 and 50 % of the full cache equally (Uniform) and by what was measured (Hull),
    and shows bytes held, loss, needles found and speed beside the full cache.

    Example: `kvbudget demo --out my-demo`
    """
    from rich.console import Console

    from kvbudget.demo.table import make_table, summary, to_record

    from .output import check_folder, print_json, say

    check_folder(out)
    result = _run(model, text)
    _write(result, out)
    say(f"Wrote {PROFILE_FILE}, {PLAN_FILE} and {PICTURE_FILE} into {out}.")
    context = result.shown_plan.context_tokens
    say(f"Try next: kvbudget compare {out / PROFILE_FILE} --context {context}")
    if json:
        print_json(to_record(result))
    else:
        screen = Console(highlight=False)
        screen.print(make_table(result))
        screen.print(summary(result))


def _run(model: str | None, text: Path | None) -> "DemoResult":
    from tqdm.auto import tqdm

    from kvbudget.demo.run import DemoRun, DemoSize
    from kvbudget.demo.trying import Reader
    from kvbudget.model_source import check_length, load_model, model_name
    from kvbudget.prose import built_in_sentences, file_sentences

    sentences = built_in_sentences() if text is None else file_sentences(text)
    reader = Reader(*load_model(model))
    size = DemoSize()
    check_length(reader.model, size.context_tokens + size.new_tokens)
    run = DemoRun(reader, model_name(model), sentences, size)
    profile = run.measure()
    plans = run.plan(profile)
    with tqdm(total=run.steps(plans), desc="testing", unit="run") as bar:
        return run.test(profile, plans, lambda: bar.update() and None)


def _write(result: "DemoResult", out: Path) -> None:
    from kvbudget.pictures import draw_plan

    out.mkdir(parents=True, exist_ok=True)
    result.profile.save(out / PROFILE_FILE)
    result.shown_plan.save(out / PLAN_FILE)
    draw_plan(result.shown_plan).save(out / PICTURE_FILE)
