"""One look, readable in grey, with words in every file."""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from kvbudget.allocator.picture_style import (
    MOST_LETTERS,
    SETTINGS,
    SHADES,
    file_bytes,
    fitting,
    kind_of,
    new_figure,
    styled,
)

SVG = "{http://www.w3.org/2000/svg}"


def drawing(shade=0.5):
    with styled():
        figure = new_figure(2.0, 1.5)
        figure.subplots().bar([0, 1], [1, 2], color=f"{shade}")
    return figure


def test_shades_grow_lighter_in_grey():
    from matplotlib import colormaps

    grey = colormaps[SHADES](np.linspace(0, 1, 50))[:, :3] @ (0.299, 0.587, 0.114)
    assert (np.diff(grey) > 0).all()


def test_a_png_carries_title_and_words():
    image = Image.open(io.BytesIO(file_bytes(drawing(), "png", "Two bars", "One is\nhigher.")))
    assert image.text["Title"] == "Two bars"
    assert image.text["Description"] == "One is higher."


def test_an_svg_carries_title_and_words_for_screen_readers():
    words = 'Two <b> & "three"\x00 bars'
    root = ElementTree.fromstring(file_bytes(drawing(), "svg", "Two bars", words))
    assert root.get("role") == "img"
    first, second = list(root)[:2]
    assert (first.tag, first.text) == (f"{SVG}title", "Two bars")
    assert (second.tag, second.text) == (f"{SVG}desc", 'Two <b> & "three" bars')


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_equal_drawings_give_equal_bytes_and_others_do_not(kind):
    one, same, other = (file_bytes(drawing(shade), kind, "a", "b") for shade in (0.5, 0.5, 0.1))
    assert one == same
    assert one != other


def test_a_pressed_png_shows_what_was_drawn():
    figure, whole = drawing(), io.BytesIO()
    with styled():
        figure.savefig(whole, format="png")
    pressed = Image.open(io.BytesIO(file_bytes(figure, "png", "a", "b")))
    before = np.asarray(Image.open(whole).convert("RGB"), dtype=float)
    after = np.asarray(pressed.convert("RGB"), dtype=float)
    assert before.shape == after.shape
    assert np.abs(before - after).max() < 12
    assert pressed.info["dpi"] == pytest.approx((SETTINGS["savefig.dpi"],) * 2, rel=0.01)


def test_what_the_user_has_set_changes_nothing_and_is_put_back():
    import matplotlib

    plain = file_bytes(drawing(), "png", "a", "b")
    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "black"}):
        assert file_bytes(drawing(), "png", "a", "b") == plain
        assert matplotlib.rcParams["font.size"] == 30.0


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.png.txt"])
def test_other_kinds_are_refused(name):
    with pytest.raises(ValueError, match=r"`path` must end in \.png or \.svg"):
        kind_of(name)


def test_the_kind_is_the_end_of_the_path_in_any_case():
    assert (kind_of("a.PNG"), kind_of("b.d/c.svg")) == ("png", "svg")


def test_of_a_long_line_the_end_is_shown():
    line = fitting("/folder" * 40 + "/model")
    assert len(line) == MOST_LETTERS
    assert line.startswith("...")
    assert line.endswith("/model")
    assert fitting("two\nlines") == "two lines"
