"""Where a chart puts its numbers: linear or logarithmic, and zero apart from what is small."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import kvbudget as kvb

LEVELS = (0.02, 0.05, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0)
NARROW = (0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.0)
WIDE = (0.8, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-5, 0.0)


def plan_of(losses: tuple[float, ...]) -> kvb.Plan:
    """A plan for two caches that lose alike."""
    geometry = kvb.Geometry("LlamaForCausalLM", 1, 2, 32, 32, "float32", (None,))
    loss = np.tile(np.array(losses), (1, 2, 1))
    profile = kvb.Profile(loss, loss[None], LEVELS, geometry, "tiny", "key_norm", (), "divergence")
    return kvb.allocate(profile, budget="50%", context_tokens=1000)


def heights(page: Any) -> np.ndarray:
    """How far each measured level lies above the foot of the axis, in pixels."""
    dots = page.find_elements("css selector", "#curve svg circle.level")
    tops = np.array([float(dot.get_attribute("cy")) for dot in dots])
    return tops[-1] - tops


def texts(page: Any, chart: str) -> list[str]:
    """All words in a chart."""
    return [each.text for each in page.find_elements("css selector", f"#{chart} svg text")]


def test_losses_of_one_size_are_drawn_in_proportion(show: Callable[..., Any]) -> None:
    page = show(plan_of(NARROW))
    assert "logarithmic" not in " ".join(texts(page, "curve"))
    found = heights(page)
    assert found / found[0] == pytest.approx(np.array(NARROW) / NARROW[0], abs=1e-3)


def test_losses_of_many_sizes_are_drawn_by_their_powers_and_zero_apart(
    show: Callable[..., Any],
) -> None:
    page = show(plan_of(WIDE))
    assert "logarithmic" in " ".join(texts(page, "curve"))
    found = heights(page)
    apart, step = found[-2], found[-3] - found[-2]
    assert apart > 20, "the smallest loss must not lie where zero lies"
    steps = found[:-1] - found[-2]
    assert steps / step == pytest.approx(np.log10(np.array(WIDE[:-1]) / WIDE[-2]), abs=0.01)


def test_a_check_of_much_the_same_losses_still_has_numbers_at_its_axes(
    show: Callable[..., Any], check: kvb.ProfileCheck
) -> None:
    near = tuple(np.linspace(5.2e-5, 5.6e-5, 20))
    narrow = replace(check, predicted=near, measured=tuple(1.7 * each for each in near))
    page = show(replace(plan_of(WIDE), check=narrow))
    words = page.find_elements("css selector", "#check svg text")
    numbers = [each for each in words if each.text[:1].isdigit()]
    sides = [each.get_attribute("text-anchor") for each in numbers]
    assert sides.count("middle") >= 2
    assert sides.count("end") >= 2
