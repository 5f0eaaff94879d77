"""`kvbudget evaluate`: what a model can do with its full cache and within plans."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Model

if TYPE_CHECKING:
    from kvbudget.allocator import Plan
    from kvbudget.evaluation import Sample, Task

QUESTION = {"unknown": False, "known": True}


def evaluate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PLAN]...", help="The same as --plan.", show_default=False),
    ] = None,
    plan: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file that `kvbudget allocate` wrote; give it several times. The full cache "
            "alone if left out.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="prose (perplexity), needle, needle_multi_key, needle_multi_value, "
            "needle_multi_query, multi_turn, key_values, lines, variables, variable_tracking, "
            "common_words, copying; give it several times. All of them if left out.",
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
            help="Tokens of context, question and answer together. What the shortest plan is made "
            "for if left out, or 1024.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Contexts for each task.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the first sample.")] = 0,
    question: Annotated[
        str,
        typer.Option(
            metavar="known|unknown",
            help="Whether the question is read before the cache is cut.",
        ),
    ] = "unknown",
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="UTF-8 prose to hide things in and to go on with. Python's own reference if left "
            "out.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Run a data set, alone or beside each --task: .jsonl, .json or .csv with the "
            "columns context, question, answer and, if you like, answer_prefix, max_new_tokens, "
            "task.",
            show_default=False,
        ),
    ] = None,
    write_dataset: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the samples into such a file instead of running them.",
            show_default=False,
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full/--no-full", help="Run the full cache, too.")] = True,
    chat: Annotated[
        bool,
        typer.Option("--chat/--no-chat", help="Use the tokenizer's chat template, if it has one."),
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write one JSON row a line.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Run tasks with the full cache and within plans: scores beside bytes held and times.

    Contexts are cut before the question is known, unless `--question known`. Tasks that the model
    cannot do with its full cache say nothing about a plan; they are named below the table.

    Example: `kvbudget evaluate plan.json --task needle --task key_values --out rows.jsonl`
    """
    import kvbudget as kvb
    from kvbudget.model_source import check_model_given, load_model, model_name

    from .output import Input, check_can_write, print_json, say

    question_known = _is_known(question)
    paths = [*(files or ()), *(plan or ())]
    inputs: list[Input] = [("`--text`", text), ("`--dataset`", dataset), ("`--model`", model)]
    inputs += [("`--plan`", path) for path in paths]
    for path, option in ((out, "--out"), (write_dataset, "--write-dataset")):
        if path is not None:
            check_can_write(path, option, inputs)
    tasks = [kvb.evaluation.tasks.named(name) for name in task] if task else None
    if write_dataset is not None:
        kvb.evaluation.check_kind(write_dataset)
        if paths or dataset or out:
            raise ValueError(
                "`--write-dataset` runs nothing: leave out `--plan`, `--dataset` and `--out`."
            )
    plans = _plans(paths)
    for each in plans.values():
        check_model_given(model, each.model, "plan")
    known = () if dataset is None else kvb.evaluation.read_samples(dataset)
    prose = _prose(text)
    if write_dataset is not None:
        drawn = _draw(model, tasks, context, samples, seed, prose, chat)
        rows = kvb.evaluation.write_samples(write_dataset, drawn)
        say(f"Wrote {rows} rows to {write_dataset}.")
        return
    loaded, tokenizer = load_model(model)
    found = kvb.evaluate(
        loaded,
        tokenizer,
        plans,
        tasks=tasks,
        dataset=known,
        context_tokens=context,
        samples=samples,
        seed=seed,
        question_known=question_known,
        text=prose,
        full=full,
        chat=chat,
        name=model_name(model),
    )
    if out is not None:
        found.save(out)
        say(f"Wrote {out}.")
    if json:
        print_json(found.to_records())
    else:
        typer.echo(str(found))


def _is_known(question: str) -> bool:
    if question not in QUESTION:
        raise ValueError(f"`--question` must be known or unknown, but got {question!r}.")
    return QUESTION[question]


def _plans(paths: list[Path]) -> "dict[str, Plan]":
    """Plans by the names of their files; by their whole paths where two files share one."""
    import kvbudget as kvb

    stems = [path.stem for path in paths]
    names = [path.stem if stems.count(path.stem) == 1 else str(path) for path in paths]
    if len(set(names)) < len(names):
        raise ValueError("`--plan` must name each file once.")
    return {name: kvb.Plan.load(path) for name, path in zip(names, paths, strict=True)}


def _prose(text: Path | None) -> str | None:
    from kvbudget.prose import read_text

    return None if text is None else read_text(text)


def _draw(
    model: str | None,
    tasks: "list[Task] | None",
    context: int | None,
    samples: int,
    seed: int,
    prose: str | None,
    chat: bool,
) -> "list[Sample]":
    """Samples without a run; the model is loaded for its tokenizer."""
    from kvbudget.evaluation import draw_samples
    from kvbudget.model_source import load_model

    _, tokenizer = load_model(model)
    return draw_samples(
        tokenizer,
        tasks=tasks,
        context_tokens=context or 1024,
        samples=samples,
        seed=seed,
        text=prose,
        chat=chat,
    )
