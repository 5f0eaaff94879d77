from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import DEFAULT_LEVELS, Geometry, Problem, Profile, solve
from kvbudget.allocator.solvers import Hull

Make = Callable[..., Profile]


def with_value(profile: Profile, value: float) -> Any:
    loss = profile.loss.copy()
    loss[2, 1, 0] = value
    return loss


def test_it_keeps_read_only_copies(make_profile: Make) -> None:
    loss = np.ones((3, 2, 4))
    profile = make_profile(loss=loss)
    loss[0, 0, 0] = 9.0
    assert profile.loss[0, 0, 0] == 1.0
    for array in (profile.loss, profile.sample_loss, profile.kept_fraction):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_half_precision_and_lists_become_float64(make_profile: Make) -> None:
    profile = make_profile(loss=np.ones((3, 2, 4), dtype=np.float16))
    assert profile.loss.dtype == profile.kept_fraction.dtype == np.float64


def test_profiles_compare_by_content(make_profile: Make) -> None:
    assert make_profile(1) == make_profile(1)
    assert make_profile(1) != make_profile(2)
    assert make_profile() != make_profile(model="another")
    assert make_profile() != 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_refused_with_its_place(
    make_profile: Make, value: float
) -> None:
    place = f"got {value} at layer 2, KV head 1, level 0"
    with pytest.raises(ValueError, match=f"`loss` must be finite, but {place}"):
        make_profile(loss=with_value(make_profile(), value))
    samples = np.ones((5, 3, 2, 4))
    samples[4, 2, 1, 0] = value
    with pytest.raises(ValueError, match="sample 4, layer 2, KV head 1"):
        make_profile(sample_loss=samples)


def test_a_negative_loss_is_refused(make_profile: Make) -> None:
    with pytest.raises(ValueError, match=r"`loss` must be at least 0, but got -1.0 at layer 2"):
        make_profile(loss=with_value(make_profile(), -1.0))


@pytest.mark.parametrize(
    "levels",
    [(0.1, 0.5, 0.2, 1.0), (0.1, 0.1, 0.5, 1.0), (0.0, 0.1, 0.5, 1.0), (0.1, 0.2, 0.5, 0.9)],
)
def test_levels_must_rise_to_one(make_profile: Make, levels: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="`kept_fraction` must rise strictly"):
        make_profile(kept_fraction=levels)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loss": np.ones((3, 2, 5))}, ValueError, "`loss` must have the shape"),
        ({"loss": np.ones((2, 3, 4))}, ValueError, "but got (2, 3, 4)"),
        ({"loss": np.ones((3, 2))}, ValueError, "[layers, kv_heads, levels]"),
        ({"loss": [["a"]]}, TypeError, "`loss` must hold real numbers"),
        ({"sample_loss": np.ones((3, 2, 4))}, ValueError, "`sample_loss` must have the shape"),
        ({"sample_loss": np.ones((5, 3, 2, 3))}, ValueError, "but got (5, 3, 2, 3)"),
        ({"sample_loss": np.ones((0, 3, 2, 4))}, ValueError, "with no empty axis"),
        ({"kept_fraction": ()}, ValueError, "with no empty axis"),
        ({"geometry": "llama"}, TypeError, "`geometry` must be a Geometry"),
        ({"model": None}, TypeError, "`model` must be a string"),
        ({"made_by": 3}, TypeError, "`made_by` must be a string"),
        ({"heuristic_settings": "window"}, TypeError, "must be (name, value) pairs"),
        ({"heuristic_settings": 3}, TypeError, "must be (name, value) pairs"),
        ({"heuristic_settings": (("a",),)}, TypeError, "must be (name, value) pairs"),
        ({"heuristic_settings": ((1, 2),)}, TypeError, "must be a string"),
        ({"heuristic_settings": (("a", [1]),)}, TypeError, "but a is [1]"),
        ({"heuristic_settings": (("a", 1), ("a", 2))}, ValueError, "name each setting once"),
        ({"heuristic_settings": (("a", float("nan")),)}, ValueError, "must be finite"),
    ],
)
def test_a_bad_field_is_refused(
    make_profile: Make, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        make_profile(**changes)
    assert message in str(caught.value)


def test_another_element_type_keeps_the_losses(profile: Profile) -> None:
    wide = profile.with_dtype("float32")
    assert wide.geometry == profile.geometry.with_dtype("float32")
    assert np.array_equal(wide.loss, profile.loss)
    assert wide.heuristic_settings == profile.heuristic_settings


def test_importance_becomes_shares_of_a_logarithm(geometry: Geometry) -> None:
    importance = np.array([[1.0, 2.0], [3.0, 0.0], [1.0, 1.0]])
    profile = Profile.from_importance(importance, geometry, heuristic="baklava")
    assert profile.loss.shape == profile.sample_loss[0].shape == (3, 2, len(DEFAULT_LEVELS))
    wanted = importance[..., None] / 8 * -np.log(DEFAULT_LEVELS)
    assert np.allclose(profile.loss, wanted)
    assert profile.measure == "importance"
    assert not np.signbit(profile.loss).any()


@given(st.floats(1e-300, 1e300))
def test_the_scale_of_importance_does_not_matter(scale: float) -> None:
    geometry = Geometry("A", 1, 2, 1, 1, "float32", (None,))
    profile = Profile.from_importance(np.array([[scale, scale / 2]]), geometry)
    assert profile.loss[0, :, 0] == pytest.approx(-np.log(0.02) * np.array([2, 1]) / 3)


def test_the_best_plan_shares_tokens_in_proportion_to_importance() -> None:
    geometry = Geometry("A", 1, 3, 1, 1, "float16", (None,))
    levels = np.arange(1, 1001) / 1000
    profile = Profile.from_importance([[1.0, 2.0, 5.0]], geometry, kept_fraction=levels)
    problem = Problem.from_profile(profile, budget=800 * 4, context_tokens=1000)
    plan = solve(problem, Hull()).plan
    assert plan.capacity_tokens.tolist() == [[100, 200, 500]]


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (np.zeros((3, 2)), "`importance` must be above 0 somewhere"),
        (-np.ones((3, 2)), "`importance` must be at least 0, but got -1.0 at layer 0, KV head 0"),
        (np.full((3, 2), np.nan), "`importance` must be finite"),
        (np.ones(3), "`importance` must have the shape [layers, kv_heads]"),
        (np.ones((2, 3)), "`loss` must have the shape"),
    ],
)
def test_unusable_importance_is_refused(geometry: Geometry, importance: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Profile.from_importance(importance, geometry)
    assert message in str(caught.value)


def test_it_reads_well(profile: Profile) -> None:
    text = str(profile)
    assert "Profile of tests/tiny: LlamaForCausalLM (3 layers x 2 KV heads" in text
    assert "output_error, tokens chosen by observation_window(window=32, kernel=7)" in text
    assert "4, keeping 0.1 to 1 of the context" in text
    assert "a test, with 5 prompts" in text
    layer, head = np.unravel_index(profile.loss[..., 0].argmax(), (3, 2))
    assert f"most at layer {layer}, KV head {head}" in text
    assert len(text.splitlines()) < 10


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        ([0.05, 0.12, 0.3, 0.5, 1.0], [1, 2, 3]),
        ([0.1, 0.25, 0.4, 1.0], [0, 1, 2]),
        ([0.1, 1.0], [0]),
        ([1.0], [0]),
    ],
)
def test_it_says_what_is_lost_if_all_caches_keep_alike(
    geometry: Geometry, levels: list[float], shown: list[int]
) -> None:
    profile = Profile.from_importance(
        np.arange(1.0, 7.0).reshape(3, 2), geometry, kept_fraction=levels
    )
    losses = [sum(profile.loss[..., at].ravel().tolist()) for at in shown]
    wanted = ", ".join(
        f"{loss:.3g} keeping {levels[at]:.3g}" for at, loss in zip(shown, losses, strict=True)
    )
    assert f"  alike     {wanted} everywhere\n" in str(profile)
