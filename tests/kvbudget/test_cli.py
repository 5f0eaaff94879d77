"""The command line as a newcomer meets it."""

import pytest

from kvbudget.commands.named import solver_classes
from kvbudget.heuristics import CacheHeuristic, TokenHeuristic, measures, names

COMMANDS = ("demo", "profile", "allocate", "compare", "generate", "draw")


def test_help_lists_every_command(run):
    done = run("--help")
    assert done.code == 0
    assert [name for name in COMMANDS if name not in done.out] == []


def test_no_command_shows_the_help(run):
    assert run().out.split() == run("--help").out.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run, command):
    done = run(command, "--help")
    assert done.code == 0
    assert f"Example: kvbudget {command}" in done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_print_json(run, command):
    assert "--json" in run(command, "--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_for(command):
    import typer.main

    from kvbudget.cli import app

    group = typer.main.get_command(app)
    options = [p for p in group.commands[command].params if p.param_type_name == "option"]
    assert len(options) > 3
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("command", ["allocate", "compare"])
def test_the_file_a_command_reads_is_explained(run, command):
    assert "A file that kvbudget profile wrote." in run(command, "--help").out.replace("`", "")


def test_help_names_every_choice(run):
    allocate, profile = run("allocate", "--help").out, run("profile", "--help").out
    assert [name for name in solver_classes() if name not in allocate] == []
    assert [name for name in measures.names() if name not in profile] == []
    assert [name for name in names(TokenHeuristic) if name not in profile] == []
    assert [name for name in names(CacheHeuristic) if name not in profile] == []


def test_version_is_said(run):
    import kvbudget

    assert run("--version").out == f"kvbudget {kvbudget.__version__}\n"


def test_an_unknown_command_is_refused(run):
    done = run("alocate")
    assert done.code == 2
    assert "No such command 'alocate'" in done.err


def test_an_error_of_ours_is_not_hidden(monkeypatch):
    from kvbudget import cli

    def broken():
        raise KeyError("a bug")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(KeyError):
        cli.main()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("One\n  thing."), "One thing."),
        (
            OSError(28, "No space left on device", "plan.json"),
            "No space left on device: plan.json.",
        ),
        (OSError(5, "Input/output error"), "Input/output error."),
        (FileNotFoundError("`path` must exist."), "`path` must exist."),
        (KeyError("x"), None),
    ],
)
def test_errors_become_one_sentence(error, sentence):
    from kvbudget.cli import sentence_for

    assert sentence_for(error) == sentence
