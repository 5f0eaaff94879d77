"""The command line: `kvbudget demo | profile | check | allocate | ...`; one file per command."""

import sys
from typing import Annotated

import typer

from kvbudget import __version__
from kvbudget.commands.allocate import allocate
from kvbudget.commands.check import check
from kvbudget.commands.compare import compare
from kvbudget.commands.demo import demo
from kvbudget.commands.draw import draw
from kvbudget.commands.evaluate import evaluate
from kvbudget.commands.generate import generate
from kvbudget.commands.profile import profile
from kvbudget.commands.report import report

BAD_INPUT = 2

app = typer.Typer(
    name="kvbudget",
    help=(
        "Divide a memory budget over the KV caches of a language model, and generate inside it."
        "\n\nStart with `kvbudget demo`: it needs no model, no network and about a minute."
        "\n\nFor a model of your own: `profile` measures once what each cache is worth, `allocate` "
        "divides a budget in milliseconds, `generate` runs the model inside the plan."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (demo, profile, check, allocate, compare, generate, evaluate, report, draw):
    app.command()(command)


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"kvbudget {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Options that come before the command."""


def sentence_for(error: Exception) -> str | None:
    """One sentence for an error that is the user's to mend, None for one that is ours."""
    from kvbudget.allocator import KVBudgetError

    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.strerror}: {error.filename}." if error.filename else f"{error.strerror}."
    if isinstance(error, (KVBudgetError, ValueError, OSError)):
        return " ".join(str(error).split()) or type(error).__name__
    return None


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit code 2."""
    try:
        app()
    except Exception as error:
        sentence = sentence_for(error)
        if sentence is None:
            raise
        sys.stderr.write(f"kvbudget: {sentence}\n")
        sys.exit(BAD_INPUT)
