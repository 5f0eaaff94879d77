"""Names and budgets as they are typed."""

import pytest

from kvbudget.allocator import Tokens, solvers
from kvbudget.commands.limits import read_share
from kvbudget.commands.named import kebab, model_given, read_budget, solver_classes, solver_named


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("25%", "25%"),
        (" 2GiB ", "2GiB"),
        ("1000", 1000),
        ("-1", -1),
        ("256tokens", Tokens(256)),
        ("1 token", Tokens(1)),
        ("1.5 gb", "1.5 gb"),
        ("200%", "200%"),
    ],
)
def test_budgets_are_read(text, budget):
    assert read_budget(text) == budget


@pytest.mark.parametrize("text", ["banana", "10M", "0.25", "12,288", "", "-5GiB", "2.5tokens"])
def test_a_budget_that_cannot_be_read_is_answered_with_all_forms(text):
    with pytest.raises(ValueError, match=r"25%, 2GiB, .* 256tokens .* 1000000, but got") as caught:
        read_budget(text)
    assert str(caught.value).endswith(f"but got {text!r}.")


def test_no_token_is_no_budget_and_the_option_is_named():
    with pytest.raises(ValueError, match="`--budget` must be at least 1 token, but got '0tokens'"):
        read_budget("0tokens")
    with pytest.raises(ValueError, match="`--head-budget` must be at least 1 token"):
        read_share("--head-budget", "0=0 tokens")


def test_a_model_that_can_be_nowhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("./a", ".a", "~/a", "/no/where", "mine/a"):
        with pytest.raises(ValueError, match=f"There is no folder {name}. Give a folder, or"):
            model_given(name)
    for name in ("", "  "):
        with pytest.raises(ValueError, match=r"`--model` must name .* but is empty. Leave it out"):
            model_given(name)


def test_other_models_are_left_to_the_loader_and_the_hub_is_announced(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in (None, "mine", "./mine", "gpt2", "a/b/c"):
        assert model_given(name) == name
    assert capsys.readouterr().err == ""
    assert model_given("nobody/has-this") == "nobody/has-this"
    said = "There is no folder nobody/has-this here. Asking the Hugging Face hub for that name.\n"
    assert capsys.readouterr().err == said


def test_every_solver_has_a_name():
    assert set(solver_classes().values()) == {getattr(solvers, name) for name in solvers.__all__}
    assert "linear-program" in solver_classes()


@pytest.mark.parametrize("name", solver_classes())
def test_a_name_gives_a_solver_of_that_class(name):
    assert type(solver_named(name)) is solver_classes()[name]


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("Hull", "hull"),
        ("LinearProgram", "linear-program"),
        ("PyramidKV", "pyramid-kv"),
        ("LUKV", "lu-kv"),
        ("KVTuner", "kv-tuner"),
        ("DuoAttention", "duo-attention"),
        ("ZigZagKV", "zig-zag-kv"),
        ("CAKE", "cake"),
        ("D2O", "d2o"),
        ("KV", "kv"),
    ],
)
def test_names_are_words_with_hyphens(name, typed):
    assert kebab(name) == typed


@pytest.mark.parametrize(
    "typed", ["linear-program", "LinearProgram", "linear_program", "LINEARprogram"]
)
def test_a_solver_is_found_however_its_name_is_spelt(typed):
    assert solver_named(typed) == solvers.LinearProgram()


def test_no_two_solvers_differ_only_in_spelling():
    plain = [name.replace("-", "") for name in solver_classes()]
    assert len(set(plain)) == len(plain) == len(solvers.__all__)
