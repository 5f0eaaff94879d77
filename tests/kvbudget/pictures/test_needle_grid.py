"""Needles by depth and length."""

import numpy as np
import pytest

from kvbudget.pictures import NeedleGrid, draw_needles


def grid(name="full cache", lengths=(256, 512, 1024), depths=(0.0, 1.0), scale=1.0):
    found = np.linspace(0, scale, len(lengths) * len(depths)).reshape(len(depths), len(lengths))
    return NeedleGrid(name, lengths, depths, tuple(map(tuple, found.tolist())), 8)


def maps(picture):
    return [axes for axes in picture.figure.axes if axes.get_title("left")]


def test_cells_and_numbers_are_what_was_found():
    (axes,) = maps(draw_needles(grid()))
    (mesh,) = axes.collections
    assert mesh.get_array().tolist() == np.array(grid().found).tolist()
    assert [text.get_text() for text in axes.texts] == ["0", "20", "40", "60", "80", "100"]
    assert mesh.get_clim() == (0, 1)


def test_depths_grow_downwards_and_lengths_to_the_right():
    (axes,) = maps(draw_needles(grid()))
    assert axes.yaxis_inverted()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["256", "512", "1024"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0%", "100%"]


def test_several_grids_stand_side_by_side_under_their_names():
    names = ["full cache", "Uniform, 10%", "Hull, 10%", "another"]
    titles = [axes.get_title("left") for axes in maps(draw_needles([grid(name) for name in names]))]
    assert titles == [f"{name}\n50% found" for name in names]


@pytest.mark.parametrize(
    ("lengths", "depths"),
    [
        ((512,), (0.5,)),
        ((256, 512), (0.0, 1.0)),
        (range(4000, 128001, 4000), np.linspace(0, 1, 21)),
    ],
)
def test_no_text_lies_over_another(lengths, depths, texts_that_touch):
    shown = grid(lengths=tuple(lengths), depths=tuple(depths))
    assert texts_that_touch(draw_needles([shown] * 4)) == []


def test_the_words_say_how_many_were_found_and_where_fewest():
    words = str(draw_needles([grid(), grid("Hull, 10%", scale=0.5)]))
    assert "full cache 50% and Hull, 10% 25%" in words
    assert "Hull, 10% is weakest at 0% depth of 256 tokens (0%)" in words


def test_where_all_were_found_nothing_is_weak():
    assert "weakest" not in str(draw_needles(NeedleGrid("a", (1,), (0.0,), ((1.0,),), 1)))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lengths", (512, 256, 1024), "`lengths` must rise"),
        ("depths", (0.5, 0.5), "`depths` must rise"),
        ("found", ((0.1, 0.2, 0.3),), "shape"),
        ("found", ((0.1, 0.2, 1.3), (0, 0, 0)), "must be in 0..1, but got 1.3"),
        ("found", ((0.1, 0.2, np.nan), (0, 0, 0)), "must be finite"),
        ("samples", 0, "`samples` must be at least 1"),
    ],
)
def test_what_is_no_grid_is_refused(field, value, said):
    fields = {
        "name": "a",
        "lengths": (256, 512, 1024),
        "depths": (0.0, 1.0),
        "found": ((0, 0, 0), (1, 1, 1)),
        "samples": 1,
    }
    with pytest.raises(ValueError, match=said):
        NeedleGrid(**{**fields, field: value})


def test_nothing_and_what_cannot_stand_side_by_side_is_refused():
    with pytest.raises(ValueError, match="at least one grid"):
        draw_needles([])
    with pytest.raises(ValueError, match="the same lengths and depths"):
        draw_needles([grid(), grid(depths=(0.0, 0.5))])
