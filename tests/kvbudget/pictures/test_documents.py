"""The pictures of the documents are small and carry their words."""

import json
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).resolve().parents[3] / "docs"
WORDS = json.loads((DOCS / "pictures" / "descriptions.json").read_text(encoding="utf-8"))
MOST_BYTES = 120 * 1024


def test_every_picture_is_described():
    files = {path.name for path in (DOCS / "pictures").glob("*.png")}
    assert {name for name in WORDS if "/" not in name} == files
    assert set(WORDS) - files == {"../plan.png"}


@pytest.mark.parametrize("name", WORDS)
def test_a_picture_carries_its_words_and_is_small(name):
    path = DOCS / "pictures" / name
    assert Image.open(path).text["Description"] == WORDS[name]
    assert path.stat().st_size < MOST_BYTES
