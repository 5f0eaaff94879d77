"""A picture is saved whole or not at all, and speaks."""

import subprocess
import sys

import pytest
from PIL import Image

import kvbudget as kvb
from kvbudget.pictures import Picture, draw_plan


@pytest.fixture
def picture(profile):
    return draw_plan(kvb.allocate(profile, budget="40%", context_tokens=200))


def test_printing_it_gives_the_words_that_are_in_the_file(picture, tmp_path):
    picture.save(tmp_path / "plan.png")
    image = Image.open(tmp_path / "plan.png")
    assert image.format == "PNG"
    assert min(image.size) > 300
    assert image.text["Description"] == str(picture) == picture.description
    assert image.text["Title"] == picture.title


def test_the_words_of_an_svg_are_words(picture, tmp_path):
    picture.save(tmp_path / "plan.svg")
    text = (tmp_path / "plan.svg").read_text()
    assert f"<desc>{picture}</desc>" in text
    assert ">KV head<" in text


def test_a_notebook_shows_it(picture):
    assert picture._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["plan.jpg", "plan"])
def test_another_kind_is_refused_and_nothing_is_written(picture, name, tmp_path):
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        picture.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_picture_cannot_be_written(picture, tmp_path):
    (tmp_path / "plan.png").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        picture.save(tmp_path / "plan.png")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.png"]


def test_a_picture_may_be_changed_before_it_is_saved(picture):
    before = picture._repr_png_()
    picture.figure.axes[0].set_title("mine")
    assert picture._repr_png_() != before


def test_drawing_needs_no_torch_and_leaves_no_global_state(tmp_path):
    program = (
        "import sys, matplotlib, kvbudget as kvb\n"
        # asking for the backend would load one
        "now = lambda: {n: matplotlib.rcParams[n] for n in matplotlib.rcParams if n != 'backend'}\n"
        "before = now()\n"
        "geometry = kvb.Geometry('A', 2, 1, 1, 1, 'float32', (None, None))\n"
        "profile = kvb.Profile.from_importance([[2.0], [1.0]], geometry)\n"
        "plan = kvb.allocate(profile, budget='70%', context_tokens=9)\n"
        "kvb.pictures.draw_plan(plan).save('a.png')\n"
        "unwanted = {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "print(sorted(unwanted), now() == before)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "[] True\n", done.stderr


def test_every_drawing_function_is_public():
    assert {name for name in kvb.pictures.__all__ if name.startswith("draw_")} == {
        *("draw_check", "draw_curves", "draw_frontier", "draw_memory", "draw_needles"),
        "draw_plan",
    }
    assert all(callable(getattr(kvb.pictures, name)) for name in kvb.pictures.__all__)
    assert Picture in vars(kvb.pictures).values()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = kvb.pictures.nonsense
