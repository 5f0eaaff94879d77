"""The pages in docs/ become a site without a warning, and it needs nothing from elsewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material", reason="mkdocs-material is not installed")
ROOT = Path(__file__).resolve().parents[2]


def build(folder, out):
    """Build the site of a folder with mkdocs.yml and docs/ in it."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=folder,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def sources(tmp_path):
    """A copy of what the site is made from."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


def pages(site):
    return {path.name: path.read_text(encoding="utf-8") for path in site.glob("*.html")}


def test_every_page_is_built_and_in_the_navigation(site):
    built = pages(site)
    wanted = {path.stem + ".html" for path in (ROOT / "docs").glob("*.md")}
    assert wanted <= set(built)
    for name in wanted:
        assert f'href="{name}"' in built["404.html"].replace('href="/', 'href="'), name


def test_nothing_is_fetched_from_elsewhere(site):
    sources = r"<(?:script|img|iframe)[^>]+src=\"?https?:"
    styles = r"<link[^>]+rel=\"?(?:stylesheet|icon|preconnect)[^>]+https?:"
    assert len(pages(site)) > 5
    for name, text in pages(site).items():
        assert not re.search(f"{sources}|{styles}", text), name
        assert "fonts.g" not in text


def test_every_picture_is_there_and_has_a_text(site):
    for name, text in pages(site).items():
        for tag in re.findall(r"<img[^>]*>", text):
            (source,) = re.findall(r'src="?([^" >]+)', tag)
            assert (site / source.lstrip("/")).is_file(), (name, source)
            (words,) = re.findall(r'alt="([^"]*)"', tag)
            assert len(words.split()) > 3 or "logo" in tag, (name, tag)


@pytest.mark.parametrize(
    "fault", ["[gone](nowhere.md)", "[gone](running.md#no-such-title)", "![gone](no.png)"]
)
def test_a_link_that_leads_nowhere_fails_the_build(fault, sources):
    with (sources / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{fault}\n")
    done = build(sources, sources / "site")
    assert done.returncode != 0
    assert "index.md" in done.stderr


def test_a_page_that_nobody_can_find_fails_the_build(sources):
    (sources / "docs" / "orphan.md").write_text("# Alone\n", encoding="utf-8")
    assert build(sources, sources / "site").returncode != 0
