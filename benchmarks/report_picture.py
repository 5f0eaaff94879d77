"""Take the picture of the report that the documents show.

    python -m benchmarks.report_picture PROFILE

PROFILE is a checked profile of the shipped model: `python -m benchmarks.pictures --keep FOLDER`
leaves one. Writes `docs/pictures/report.png` and its words into `descriptions.json` beside it.
Needs selenium, chromium and chromedriver (Debian: chromium-driver).
"""

import argparse
import base64
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kvbudget as kvb
from benchmarks.pictures import CONTEXT_TOKENS, DESCRIPTIONS
from kvbudget.allocator.files import write_whole
from kvbudget.allocator.picture_style import pressed

BUDGET, WIDTH, DPI = "25%", 1280, 96
PARTS = ("used", "loss", "bound", "gap", "tokens")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.chrome.webdriver import WebDriver

    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for each in OPTIONS:
        options.add_argument(each)
    driver = WebDriver(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def screenshot(page: Any, below: str) -> bytes:
    """The page down to the end of an element, as PNG."""
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": WIDTH, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    end = page.execute_script(
        "return document.querySelector(arguments[0]).getBoundingClientRect().bottom + scrollY",
        below,
    )
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": round(end) + 16, "scale": 1}
    shot = page.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
    )
    return base64.b64decode(shot["data"])


def describe(page: Any) -> str:
    """What is to be seen, in words, with the numbers of the page."""
    model, shown, *values = (
        page.find_element("css selector", name).text.replace("\u00a0", " ")
        for name in ("h1", "#shown", *(f"#{part}" for part in PARTS))
    )
    used, loss, bound, gap, tokens = values
    return (
        f"The upper part of a report on {model} in a browser. A slider for the memory budget, and"
        f" fields for budget, context and batch size. {shown} Figures: memory used {used},"
        f" predicted loss {loss}, proven bound {bound}, gap {gap}, {tokens} tokens kept per cache"
        " on average. Below them the heat map of what each cache keeps, the falling curve of loss"
        " against memory, and the measured levels of one cache with their lower hull."
    )


def take(profile: kvb.Profile, path: Path) -> str:
    """Write the picture, and return its words."""
    plan = kvb.allocate(profile, budget=BUDGET, context_tokens=CONTEXT_TOKENS)
    with tempfile.TemporaryDirectory() as folder, browser() as page:
        file = Path(folder) / "report.html"
        kvb.save_report(plan, file, profile=profile)
        page.get(file.as_uri())
        shot, words = screenshot(page, "#pair"), describe(page)
    title = "The report of a plan"
    png = pressed(io.BytesIO(shot), {"Title": title, "Description": words}, DPI)
    write_whole(path, png)
    return words


def main() -> None:
    """Take the picture, and write the words beside."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.report_picture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("profile", type=Path)
    arguments.add_argument("--docs", type=Path, default=Path("docs"))
    chosen = arguments.parse_args()
    folder = chosen.docs / "pictures"
    file = folder / DESCRIPTIONS
    words = json.loads(file.read_text())
    words["report.png"] = take(kvb.Profile.load(chosen.profile), folder / "report.png")
    write_whole(file, (json.dumps(words, indent=2) + "\n").encode())
    print(words["report.png"])


if __name__ == "__main__":
    main()
