"""The picture shows the plan, and can be read without colours."""

from dataclasses import replace

import numpy as np
import pytest

import kvbudget as kvb
from kvbudget.pictures import draw_plan


@pytest.fixture
def plan(profile):
    return kvb.allocate(profile, budget="40%", context_tokens=200)


def cells(picture):
    """The shares that the map shows, [kv_heads, layers], masked where there is no cache."""
    (mesh,) = [
        mesh
        for axes in picture.figure.axes
        for mesh in axes.collections
        if mesh.get_array() is not None and axes.get_xlabel().startswith("layer")
    ]
    return mesh.get_array()


def test_each_cell_shows_what_its_cache_keeps(plan):
    assert cells(draw_plan(plan)).T.tolist() == plan.kept_fraction.tolist()


def test_every_cache_of_a_small_model_has_its_number(plan):
    texts = [text for axes in draw_plan(plan).figure.axes for text in axes.texts]
    numbers = {tuple(int(at) for at in text.get_position()): text.get_text() for text in texts}
    assert len(texts) == 24
    for layer, head in np.ndindex(6, 4):
        assert numbers[layer, head] == str(plan.capacity_tokens[layer, head])


def test_the_layers_lie_from_left_to_right_and_more_is_lighter(seen):
    geometry = kvb.Geometry("LlamaForCausalLM", 2, 2, 8, 8, "float32", (None, None))
    profile = kvb.Profile.from_importance([[1.0, 1.0], [30.0, 30.0]], geometry)
    picture = draw_plan(kvb.allocate(profile, budget="60%", context_tokens=100))
    grey = seen(picture)
    (axes,) = [axes for axes in picture.figure.axes if axes.get_xlabel() == "layer"]
    scale = 150 / picture.figure.dpi
    left, right = (
        grey[len(grey) - 1 - int(y * scale), int(x * scale)]
        for x, y in axes.transData.transform([(0.15, 0.2), (1.15, 0.2)])
    )
    assert right > left + 40


@pytest.mark.parametrize("shape", [(1, 1), (6, 4), (80, 8), (128, 1), (32, 32)])
def test_no_text_lies_over_another_whatever_the_model(shape, measured_profile, texts_that_touch):
    profile = measured_profile(shape, model="somebody/Something-70B-Instruct")
    picture = draw_plan(kvb.allocate(profile, budget="20%", context_tokens=131_072))
    assert texts_that_touch(picture) == []
    width, height = picture.figure.get_size_inches()
    assert width < 12
    assert height < 9


@pytest.mark.parametrize("shape", [(80, 8), (128, 1)])
def test_a_large_model_shows_the_means_of_its_layers(shape, measured_profile):
    plan = kvb.allocate(measured_profile(shape), budget="30%", context_tokens=1000)
    (bars,) = [a for a in draw_plan(plan).figure.axes if a.get_ylabel() == "layer mean"]
    heights = [patch.get_height() for patch in bars.patches]
    assert heights == pytest.approx(plan.capacity_tokens.mean(1).tolist())


def test_a_cache_that_a_layer_does_not_have_is_hatched(ragged_plan, said):
    picture = draw_plan(ragged_plan)
    assert np.ma.getmaskarray(cells(picture)).T.tolist() == (~ragged_plan.geometry.present).tolist()
    hatched = [axes.patch.get_hatch() for axes in picture.figure.axes]
    assert "////" in hatched
    assert any("hatched" in text for text in said(picture))
    assert "up to 4 KV heads" in str(picture)


def test_the_words_tell_the_same_as_the_picture(plan):
    words = str(draw_plan(plan))
    tokens = plan.capacity_tokens
    layer, head = np.unravel_index(tokens.argmax(), tokens.shape)
    for part in (
        *("a model", "6 layers x 4 KV heads", "of 200", "Hull", "40% of the full cache"),
        f"from {tokens.min()} to {tokens.max()}",
        f"layer {layer}, KV head {head}",
    ):
        assert part in words


def test_words_do_not_single_out_one_of_equals(measured_profile):
    profile = measured_profile((3, 2))
    equal = kvb.allocate(profile, budget="40%", context_tokens=100, solver=kvb.solvers.Uniform())
    assert str(draw_plan(equal)).endswith("40% of the full cache: 40 in every cache.")
    rows = replace(equal, capacity_tokens=np.array([[10, 40], [20, 30], [40, 10]]))
    assert str(draw_plan(rows)).endswith(
        "on average 25. Most is kept in layer 0, KV head 1 and 1 other. The means of the layers"
        " are equal."
    )


def test_the_heading_names_model_solver_and_memory(plan, said):
    heading = next(text for text in said(draw_plan(plan)) if "Hull" in text)
    assert heading.startswith("a model\n")
    assert "40% of the full cache" in heading


def test_a_name_with_dollars_is_no_formula(measured_profile, seen):
    profile = measured_profile((2, 2), model=r"$\nonsense{$ a $x$")
    assert seen(draw_plan(kvb.allocate(profile, budget="50%", context_tokens=50))).size > 0
