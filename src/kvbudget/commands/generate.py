"""`kvbudget generate`: run a model inside a plan."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from .options import Json, Model

if TYPE_CHECKING:
    from kvbudget.allocator import Plan


@dataclass(frozen=True, slots=True)
class Answer:
    """What a generation gave and took.

    Args:
        text: The new text.
        prompt_tokens: Tokens read.
        new_tokens: Tokens generated.
        held_bytes: Bytes of the live K and V storages at the end.
        full_bytes: Bytes the full cache of the same tokens takes.
        seconds: Time for reading and generating.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    held_bytes: int
    full_bytes: int
    seconds: float


def generate(
    plan: Annotated[
        Path | None,
        typer.Argument(
            metavar="PLAN",
            help="A file that `kvbudget allocate` wrote.",
            show_default=False,
        ),
    ] = None,
    plan_option: Annotated[
        Path | None,
        typer.Option("--plan", metavar="PLAN", help="The same as an option.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What the model reads.", show_default=False)
    ] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same from a UTF-8 file.", show_default=False),
    ] = None,
    model: Model = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate.")] = 64,
    json: Json = False,
) -> None:
    """Generate text with caches of exactly the plan's sizes.

    Text goes to standard output, what the caches held to standard error.

    Example: `kvbudget generate plan.json --prompt-file question.txt`
    """
    import kvbudget as kvb
    from kvbudget.allocator.bytes_text import format_bytes
    from kvbudget.model_source import check_model_given

    from .output import print_json, say

    text = _prompt(prompt, prompt_file)
    loaded = kvb.Plan.load(_plan(plan, plan_option))
    check_model_given(model, loaded.model, "plan")
    answer = _generate(loaded, text, model, max_new_tokens)
    if json:
        print_json(asdict(answer))
    else:
        typer.echo(answer.text)
        held, full = format_bytes(answer.held_bytes), format_bytes(answer.full_bytes)
        allowed = format_bytes(loaded.budget_bytes)
        if answer.full_bytes <= loaded.budget_bytes:
            say(f"Nothing was evicted: these tokens take {full}, and the plan allows {allowed}.")
        else:
            say(
                f"The caches hold {held}, where the full cache of these tokens takes {full}; "
                f"the plan allows {allowed}."
            )


def _plan(plan: Path | None, plan_option: Path | None) -> Path:
    given = plan if plan_option is None else plan_option
    if given is None or (plan is not None and plan_option is not None):
        raise ValueError("Give one plan: kvbudget generate plan.json --prompt ...")
    return given


def _prompt(prompt: str | None, prompt_file: Path | None) -> str:
    from kvbudget.prose import read_text

    if (prompt is None) == (prompt_file is None):
        raise ValueError("Give either --prompt or --prompt-file.")
    text = prompt if prompt_file is None else read_text(prompt_file)
    if not text:
        raise ValueError("`--prompt` must hold text, but it is empty.")
    return text


def _generate(plan: "Plan", text: str, model: str | None, max_new_tokens: int) -> Answer:
    """Generate, and read off what the caches hold."""
    import torch

    import kvbudget as kvb
    from kvbudget.model_source import check_length, load_model

    loaded, tokenizer = load_model(model)
    inputs = tokenizer(text, return_tensors="pt").to(loaded.device)
    num_tokens = inputs["input_ids"].shape[1]
    check_length(loaded, num_tokens + max_new_tokens)
    start = time.perf_counter()
    with torch.no_grad(), kvb.budgeted(loaded, plan) as cache:
        output = cast(Any, loaded).generate(
            **inputs,
            past_key_values=cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        held_bytes = cache.nbytes()
    new = output[0, num_tokens:]
    # the last token is given out, but nothing has read it yet
    seen = num_tokens + len(new) - 1
    return Answer(
        text=str(tokenizer.decode(new, skip_special_tokens=True)),
        prompt_tokens=num_tokens,
        new_tokens=len(new),
        held_bytes=held_bytes,
        full_bytes=plan.geometry.full_bytes(seen),
        seconds=time.perf_counter() - start,
    )
