"""What the tests of the report share: measured losses, plans, and a browser that opens files."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kvbudget as kvb

Open = Callable[..., Any]
LEVELS = (0.02, 0.05, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0)


def make_profile(
    geometry: kvb.Geometry, *, seed: int = 0, levels: tuple[float, ...] = LEVELS, prompts: int = 4
) -> kvb.Profile:
    """Losses that fall as measured ones do: by different amounts, and not always."""
    draw = np.random.default_rng(seed)
    shape = (prompts, geometry.layers, geometry.kv_heads, 1)
    need = np.exp(draw.normal(-4, 2, shape))
    bumps = np.exp(draw.normal(0, 0.3, (*shape[:-1], len(levels))))
    losses = need * (1 / np.array(levels) - 1) ** 0.7 * bumps
    losses[:, ~geometry.present] = 0
    return kvb.Profile(
        loss=losses.mean(axis=0),
        sample_loss=losses,
        kept_fraction=levels,
        geometry=geometry,
        model="tiny",
        heuristic="observation_window",
        heuristic_settings=(("window", 32), ("kernel", 7)),
        measure="divergence",
        made_by=f"measure_profile over {prompts} prompts",
    )


@pytest.fixture(scope="session")
def geometry() -> kvb.Geometry:
    """Six layers of four KV heads."""
    return kvb.Geometry("LlamaForCausalLM", 6, 4, 32, 32, "float32", (None,) * 6)


@pytest.fixture(scope="session")
def profile(geometry: kvb.Geometry) -> kvb.Profile:
    """Losses on four prompts."""
    return make_profile(geometry)


@pytest.fixture(scope="session")
def plan(profile: kvb.Profile) -> kvb.Plan:
    """A quarter of 1000 tokens."""
    return kvb.allocate(profile, budget="25%", context_tokens=1000)


@pytest.fixture(scope="session")
def check() -> kvb.ProfileCheck:
    """Twenty plans, half of them solved, that lost about what was predicted."""
    predicted = np.geomspace(0.001, 0.6, 20)
    measured = predicted * np.tile([1.2, 0.8], 10)
    return kvb.ProfileCheck(
        predicted=tuple(predicted),
        measured=tuple(measured),
        kept_fraction=tuple(np.linspace(0.6, 0.1, 20)),
        is_solved=(True, False) * 10,
        prompts=4,
    )


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, which keeps what is downloaded."""
    selenium = pytest.importorskip("selenium", reason="selenium is not installed")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if None in programs.values():
        pytest.skip("chromium and chromedriver (Debian: chromium-driver) are not installed")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.chrome.webdriver import WebDriver

    assert selenium
    downloads = tmp_path_factory.mktemp("downloads")
    options = Options()
    options.binary_location = programs["chromium"]
    for each in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(each)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = WebDriver(options=options, service=Service(programs["chromedriver"]))
    driver.downloads = downloads
    yield driver
    driver.quit()


def set_screen(page: Any, size: tuple[int, int]) -> None:
    """Give the window a size, and wait until the page has been drawn for it."""
    width, height = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    page.execute_async_script(
        "const [done] = arguments; requestAnimationFrame(() => requestAnimationFrame(done))"
    )


def set_media(page: Any, media: str, scheme: str) -> None:
    """Show it on a screen or on paper, light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


@pytest.fixture
def resize() -> Callable[..., None]:
    """Give a page that is open another size."""
    return set_screen


@pytest.fixture
def recolour() -> Callable[..., None]:
    """Show a page that is open on paper, or light, or dark."""
    return set_media


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open the report of a plan in a window of some size; afterwards nothing was complained of."""

    def call(
        plan: kvb.Plan,
        profile: kvb.Profile | None = None,
        *,
        size: tuple[int, int] = (1280, 900),
        media: str = "screen",
        scheme: str = "light",
    ) -> Any:
        path = tmp_path / "report.html"
        kvb.save_report(plan, path, profile=profile)
        set_screen(browser, size)
        set_media(browser, media, scheme)
        browser.get(path.as_uri())
        return browser

    yield call
    assert browser.get_log("browser") == []
