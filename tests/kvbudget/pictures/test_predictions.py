"""Predicted against measured loss, a mark for each plan."""

from dataclasses import replace

import numpy as np
import pytest

import kvbudget as kvb
from kvbudget.pictures import draw_check


@pytest.fixture
def check():
    rng = np.random.default_rng(0)
    measured = np.geomspace(1e-4, 1, 20)
    return kvb.ProfileCheck(
        predicted=tuple(measured * rng.uniform(0.3, 1.5, 20)),
        measured=tuple(measured),
        kept_fraction=(0.2,) * 20,
        is_solved=(True, False) * 10,
        prompts=3,
    )


def lines(picture):
    (axes,) = picture.figure.axes
    return {line.get_label(): np.array(line.get_data()) for line in axes.get_lines()}


def test_each_plan_is_where_it_was_predicted_and_measured(check):
    drawn = lines(draw_check(check))
    assert drawn["solved plan"].tolist() == [list(check.predicted[::2]), list(check.measured[::2])]
    assert drawn["random plan"].tolist() == [
        list(check.predicted[1::2]),
        list(check.measured[1::2]),
    ]


def test_between_the_dashed_lines_the_ratio_is_within_two(check):
    drawn = lines(draw_check(check))
    x, y = drawn["wrong by a factor of 2"]
    assert (y / x).tolist() == pytest.approx([2.0, 2.0])
    assert drawn["equal"][0].tolist() == drawn["equal"][1].tolist()


def test_a_loss_of_nothing_stays_in_the_picture(check):
    picture = draw_check(replace(check, measured=(0.0, *check.measured[1:])))
    (axes,) = picture.figure.axes
    _, y = lines(picture)["solved plan"][:, 0]
    assert y == pytest.approx(check.measured[1] / 2)
    assert axes.get_ylim()[0] < y


def test_in_another_unit_there_is_no_line_to_lie_on(check, said):
    picture = draw_check(replace(check, in_nats=False))
    assert "equal" not in lines(picture)
    assert any("another unit" in text for text in said(picture))
    assert "another unit" in str(picture)
    assert "within a factor" not in str(picture)


def test_the_words_give_the_figures_of_the_check(check):
    words = str(draw_check(check, model="a model"))
    for part in (
        "10 solved plans",
        "10 random plans",
        "of a model",
        "3 prompts",
        "0.0001 to 1 nats",
    ):
        assert part in words
    assert f"rank correlation {check.spearman:.3f}" in words
    assert f"{check.within_two:.0%} of all plans" in words


@pytest.mark.parametrize("model", ["", "somebody/Something-70B-Instruct"])
def test_no_text_lies_over_another(check, model, texts_that_touch):
    assert texts_that_touch(draw_check(check, model=model)) == []


def test_losses_that_are_nearly_the_same_have_labels_that_do_not_touch(check, texts_that_touch):
    for in_nats in (True, False):
        narrow = replace(
            check,
            predicted=tuple(np.linspace(0.21, 0.3, 20)),
            measured=tuple(np.linspace(0.2, 0.31, 20)),
            in_nats=in_nats,
        )
        picture = draw_check(narrow)
        assert texts_that_touch(picture) == []
        (axes,) = picture.figure.axes
        for low, high in (axes.get_xlim(), axes.get_ylim()):
            assert high / low >= 99


def test_without_solved_plans_nothing_is_said_of_them(check):
    words = str(draw_check(replace(check, is_solved=(False,) * 20)))
    assert "of all plans; the worst ratio" in words
    assert "of the solved ones" not in words


def test_what_was_never_checked_is_refused():
    with pytest.raises(TypeError, match="Run check_profile first"):
        draw_check(None)
