"""The picture shows the plan, and can be read without colours."""

import io

import numpy as np
import pytest
from PIL import Image

import kvbudget as kvb
from kvbudget.heat_map import heat_map_png, save_heat_map


@pytest.fixture
def plan(profile):
    return kvb.allocate(profile, budget="40%", context_tokens=200)


def picture(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=float)


def test_the_file_is_a_picture_of_the_plan(plan, tmp_path):
    save_heat_map(plan, tmp_path / "plan.png")
    image = Image.open(tmp_path / "plan.png")
    assert image.format == "PNG"
    assert min(image.size) > 300


def test_more_tokens_are_lighter_in_grey():
    from matplotlib import colormaps

    grey = colormaps["cividis"](np.linspace(0, 1, 50))[:, :3] @ (0.299, 0.587, 0.114)
    assert (np.diff(grey) > 0).all()


def test_another_plan_gives_another_picture(plan, profile):
    other = kvb.allocate(profile, budget="80%", context_tokens=200)
    assert not np.array_equal(picture(heat_map_png(plan)), picture(heat_map_png(other)))


@pytest.fixture
def said(monkeypatch):
    """Every text of the pictures drawn."""
    from matplotlib.figure import Figure

    said = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *_, **__: said.extend(
            text
            for axes in figure.axes
            for text in (
                axes.get_title(),
                axes.get_xlabel(),
                axes.get_ylabel(),
                *(t.get_text() for t in axes.texts),
            )
        ),
    )
    return said


def test_title_axes_and_bar_say_what_is_shown(plan, said):
    heat_map_png(plan)
    assert "KV head" in said
    assert "layer" in said
    assert "tokens kept of a context of 200" in said
    assert any("40%" in text and "Hull" in text for text in said)
    assert [t for t in plan.capacity_tokens.ravel().tolist() if str(t) not in said] == []


def test_a_large_model_is_drawn_without_numbers(profile):
    geometry = kvb.Geometry("LlamaForCausalLM", 80, 16, 8, 8, "float32", (None,) * 80)
    large = kvb.Profile.from_importance(np.ones((80, 16)), geometry)
    assert picture(heat_map_png(kvb.allocate(large, budget="50%", context_tokens=100))).size > 0


def test_a_cache_that_a_layer_does_not_have_is_left_empty(said):
    shapes = (kvb.allocator.CacheShape(2, 8, 8), kvb.allocator.CacheShape(1, 8, 8))
    geometry = kvb.Geometry.of_layers("Gemma4ForCausalLM", shapes, "float32", (None, None))
    profile = kvb.Profile.from_importance([[1, 1], [1, 0]], geometry)
    heat_map_png(kvb.allocate(profile, budget="100%", context_tokens=77))
    assert said.count("77") == 3
    assert "0" not in said


def test_nothing_is_left_when_the_picture_cannot_be_written(plan, tmp_path):
    (tmp_path / "plan.png").mkdir()
    with pytest.raises(OSError, match="is a folder"):
        save_heat_map(plan, tmp_path / "plan.png")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.png"]
