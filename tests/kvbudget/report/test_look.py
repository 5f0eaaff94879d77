"""How the page looks: wide and narrow, light and dark, on paper; and to those who hear it."""

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kvbudget as kvb

Show = Callable[..., Any]
Change = Callable[..., None]
SIZES = {"wide": (1280, 900), "narrow": (360, 740), "very wide": (2200, 1200)}


@pytest.fixture
def checked(profile: kvb.Profile, check: kvb.ProfileCheck) -> tuple[kvb.Plan, kvb.Profile]:
    measured = replace(profile, check=check)
    return kvb.allocate(measured, budget="25%", context_tokens=1000), measured


def picture(page: Any, path: Path) -> np.ndarray:
    """The whole page as grey levels from 0 to 255."""
    from PIL import Image

    size = page.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollHeight]"
    )
    clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
    shot = page.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
    )
    path.write_bytes(base64.b64decode(shot["data"]))
    return np.asarray(Image.open(path).convert("L"))


@pytest.mark.parametrize("size", SIZES)
def test_nothing_sticks_out(
    show: Show, resize: Change, checked: tuple[kvb.Plan, kvb.Profile], size: str
) -> None:
    page = show(*checked, size=SIZES[size])
    for width, height in (SIZES[size], *SIZES.values()):
        resize(page, (width, height))
        assert page.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_the_scheme_is_followed(
    show: Show,
    recolour: Change,
    checked: tuple[kvb.Plan, kvb.Profile],
    tmp_path: Path,
    size: str,
) -> None:
    page = show(*checked, size=SIZES[size])
    for scheme in ("light", "dark"):
        recolour(page, "screen", scheme)
        grey = picture(page, tmp_path / "page.png")
        assert (np.median(grey) > 200) == (scheme == "light")
        assert grey.std() > 10


def test_paper_is_white_whatever_the_screen(
    show: Show, checked: tuple[kvb.Plan, kvb.Profile], tmp_path: Path
) -> None:
    page = show(*checked, media="print", scheme="dark")
    assert np.median(picture(page, tmp_path / "page.png")) > 250
    assert not page.find_element("id", "take").is_displayed()
    assert len(page.find_elements("css selector", "tbody tr")) == 24


def test_everything_that_can_be_used_has_a_name(
    show: Show, checked: tuple[kvb.Plan, kvb.Profile]
) -> None:
    page = show(*checked)
    unnamed = page.execute_script(
        """
        const all = document.querySelectorAll("input, button, svg[role], section");
        return [...all].filter((each) => {
          const label = each.labels?.length || each.getAttribute("aria-label") ||
            each.getAttribute("aria-labelledby") || each.textContent.trim();
          return !label;
        }).map((each) => each.outerHTML.slice(0, 80));
        """
    )
    assert unnamed == []
    drawings = page.find_elements("css selector", "#front svg, #curve svg, #check svg, #map svg")
    assert len(drawings) == 4
    assert all(any(map(str.isdigit, each.get_attribute("aria-label"))) for each in drawings)


def test_text_can_be_read_on_its_ground(
    show: Show, recolour: Change, checked: tuple[kvb.Plan, kvb.Profile]
) -> None:
    page = show(*checked)
    for scheme in ("light", "dark"):
        recolour(page, "screen", scheme)
        assert page.execute_script(LEAST_CONTRAST) >= 4.5


LEAST_CONTRAST = """
const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
const light = (colour) => {
  const [red, green, blue] = colour.match(/[\\d.]+/g).map((each) => channel(each / 255));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
  return "rgb(255, 255, 255)";
};
const ratios = [...document.querySelectorAll("p, h1, h2, td, dt, dd, label, button, a, li, code")]
  .filter((each) => each.checkVisibility() && each.textContent.trim())
  .map((each) => [light(getComputedStyle(each).color), light(ground(each))])
  .map(([ink, paper]) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05));
return Math.min(...ratios);
"""


def test_numbers_in_the_map_can_be_read_on_their_shades(
    show: Show, profile: kvb.Profile, geometry: kvb.Geometry
) -> None:
    shares = np.linspace(1, 1000, 24).astype(int).reshape(6, 4)
    plan = replace(
        kvb.allocate(profile, budget="100%", context_tokens=1000), capacity_tokens=shares
    )
    page = show(plan)
    worst = page.execute_script(
        LEAST_CONTRAST.split("const ground")[0]
        + """
        const cells = [...document.querySelectorAll("#map rect[data-cache]")];
        const texts = [...document.querySelectorAll("#map text[data-cache]")];
        return Math.min(...texts.map((text, at) => {
          const shades = [getComputedStyle(text).fill, cells[at].getAttribute("fill")];
          const [ink, paper] = shades.map(light);
          return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        }));
        """
    )
    assert worst >= 4.5


@pytest.mark.parametrize("shape", [(128, 1), (1, 16), (32, 32), (4, 128)])
def test_maps_of_every_shape_fit_and_have_one_cell_per_cache(
    show: Show, resize: Change, shape: tuple[int, int]
) -> None:
    layers, heads = shape
    geometry = kvb.Geometry("M", layers, heads, 64, 64, "float16", (None,) * layers)
    profile = kvb.Profile.from_importance(
        np.arange(1, layers * heads + 1).reshape(shape), geometry, model="shapes"
    )
    page = show(kvb.allocate(profile, budget="30%", context_tokens=4096))
    for width in (1280, 360):
        resize(page, (width, 900))
        check_map(page, layers * heads)


def check_map(page: Any, caches: int) -> None:
    box = page.find_element("id", "map").rect
    cells = page.execute_script(
        "return [...document.querySelectorAll('#map rect[data-cache]')].map((cell) => {"
        "const box = cell.getBoundingClientRect(); return [box.left, box.right, box.height]})"
    )
    assert len(cells) == caches
    assert min(cell[0] for cell in cells) >= box["x"]
    assert max(cell[1] for cell in cells) <= box["x"] + box["width"]
    assert min(cell[2] for cell in cells) >= 3


def test_layers_with_fewer_heads_leave_places_empty(show: Show) -> None:
    shapes = [kvb.CacheShape(4, 8, 8), kvb.CacheShape(1, 8, 8), kvb.CacheShape(2, 8, 8)]
    geometry = kvb.Geometry.of_layers("M", shapes, "float16", (None,) * 3)
    importance = np.where(geometry.present, 1.0, 0.0)
    profile = kvb.Profile.from_importance(importance, geometry, model="ragged")
    page = show(kvb.allocate(profile, budget="30%", context_tokens=1000))
    count = page.execute_script("return document.querySelectorAll('#map rect[data-cache]').length")
    assert count == 7
    rows = page.execute_script(
        "return [...document.querySelectorAll('tbody tr')].map((row) => row.cells[0].textContent)"
    )
    assert rows == list("0000122")
