"""Curves go through what was measured, hulls below all of it."""

from dataclasses import replace

import numpy as np
import pytest

from kvbudget.pictures import draw_curves
from kvbudget.pictures.loss_curves import hull_corners


def panels(picture):
    """The panels in order, by the name of their cache."""
    return {
        tuple(
            int(word.strip(",")) for word in axes.get_title("left").split("\n")[0].split()[1::3]
        ): axes
        for axes in picture.figure.axes
        if axes.axison
    }


def lines(axes):
    return {line.get_label(): np.array(line.get_data()) for line in axes.get_lines()}


def brute_hull(x, y):
    """Corners by definition: strictly below the line between any two other points."""
    best = np.minimum.accumulate(y)
    return [
        not any(
            best[at] >= best[a] + (best[b] - best[a]) * (x[at] - x[a]) / (x[b] - x[a])
            for a in range(at)
            for b in range(at + 1, len(x))
        )
        and (at == 0 or best[at] < best[at - 1])
        for at in range(len(x))
    ]


def test_the_hull_is_that_of_the_definition():
    rng = np.random.default_rng(3)
    kept = np.sort(rng.uniform(0, 1, 9))
    for _ in range(30):
        loss = rng.uniform(0, 1, 9) * np.linspace(1, 0.2, 9)
        assert hull_corners(kept, loss).tolist() == brute_hull(kept, loss)


def test_the_caches_that_lose_most_come_first_and_those_that_lose_least_last(profile):
    shown = list(panels(draw_curves(profile, most=4, least=3)))
    order = np.argsort(-profile.loss[..., 0], axis=None)
    wanted = [divmod(int(at), 4) for at in (*order[:4], *order[-3:])]
    assert shown == wanted


def test_each_panel_shows_its_own_losses_and_their_hull(profile):
    for cache, axes in panels(draw_curves(profile)).items():
        drawn = lines(axes)
        assert drawn["level"].tolist() == [
            profile.kept_fraction.tolist(),
            profile.loss[cache].tolist(),
        ]
        corner = hull_corners(profile.kept_fraction, profile.loss[cache])
        assert drawn["hull"][1].tolist() == profile.loss[cache][corner].tolist()
        below = np.interp(profile.kept_fraction, *drawn["hull"])
        assert (below <= profile.loss[cache] * (1 + 1e-9)).all()


def test_chosen_caches_are_drawn_in_the_order_asked_for(profile):
    chosen = [(5, 3), (0, 0), (2, 1), (1, 1), (4, 2)]
    assert list(panels(draw_curves(profile, chosen))) == chosen


def test_a_band_holds_the_middle_of_the_prompts(profile):
    (axes,) = panels(draw_curves(profile, [(1, 2)])).values()
    (band,) = axes.collections
    low, high = np.quantile(profile.sample_loss[:, 1, 2, 0], [0.1, 0.9])
    heights = [y for x, y in band.get_paths()[0].vertices if x == profile.kept_fraction[0]]
    assert (min(heights), max(heights)) == (pytest.approx(low), pytest.approx(high))


def test_one_prompt_has_no_spread(measured_profile, said):
    picture = draw_curves(measured_profile((2, 2)), [(0, 0)])
    assert not any("prompts" in text for text in said(picture))


@pytest.mark.parametrize("chosen", [None, [(0, 0)], [(0, 0), (1, 1), (2, 2), (3, 3), (4, 0)]])
def test_no_text_lies_over_another(profile, chosen, texts_that_touch):
    assert texts_that_touch(draw_curves(profile, chosen)) == []


def test_few_caches_are_not_drawn_twice(measured_profile):
    assert len(panels(draw_curves(measured_profile((1, 3))))) == 3


def test_the_words_name_the_caches_at_both_ends(profile):
    words = str(draw_curves(profile))
    at = divmod(int(profile.loss[..., 0].argmax()), 4)
    assert f"layer {at[0]}, KV head {at[1]} loses {profile.loss[*at, 0]:.2g}" in words
    assert "Keeping 5%" in words


@pytest.mark.parametrize("cache", [(6, 0), (0, 4), (-1, 0)])
def test_a_cache_that_is_not_there_is_refused(profile, cache):
    with pytest.raises(ValueError, match=r"must hold \(layer, KV head\) pairs of the model"):
        draw_curves(profile, [cache])


@pytest.mark.parametrize("number", [0, 49])
def test_none_or_too_many_are_refused(profile, number):
    with pytest.raises(ValueError, match=f"must be 1 to 48 caches, but got {number}"):
        draw_curves(profile, most=number, least=0)


def test_words_promise_no_fall_to_nothing_that_was_not_measured(profile):
    left = replace(profile, loss=profile.loss + 0.5)
    assert "falls to 0" not in str(draw_curves(left))
    assert "falls to 0" in str(draw_curves(profile))


def test_a_single_curve_is_told_once(measured_profile):
    words = str(draw_curves(measured_profile((1, 1))))
    assert words.count("layer 0, KV head 0") == 1


def test_negative_numbers_of_curves_are_refused(profile):
    with pytest.raises(ValueError, match="`most` and `least` must be at least 0"):
        draw_curves(profile, most=-2, least=4)
