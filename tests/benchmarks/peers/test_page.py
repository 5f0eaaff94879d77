"""The page says what the rows say."""

import pytest

ROWS, PAGE = "benchmarks/results/peers.jsonl", "docs/comparison.md"


@pytest.fixture(scope="module")
def run(peers, root):
    """Cells, costs and versions of the last run."""
    path = root / ROWS
    if not path.is_file():
        pytest.skip(f"no run has written {ROWS} yet")
    return peers("page").read_run(path)


def test_the_page_is_the_one_that_the_rows_give(peers, root, run):
    assert (root / PAGE).read_text(encoding="utf-8") == peers("page").page(*run)


def test_its_pictures_are_there_and_carry_their_words(peers, root, run):
    from PIL import Image

    page = (root / PAGE).read_text(encoding="utf-8")
    for name in (peers("page").DIVERGENCE_PICTURE, peers("page").NEEDLES_PICTURE):
        assert f"({name})" in page
        with Image.open(root / "docs" / name) as picture:
            assert len(picture.text["Description"]) > 20


def test_every_press_that_was_not_run_is_named_with_the_reason(peers, root, run):
    page = (root / PAGE).read_text(encoding="utf-8")
    reasons = peers("not_run").NOT_RUN
    assert len(reasons) > 10
    assert all(f"- `{name}`: {reason}." in page for name, reason in reasons.items())


def test_numbers_have_three_figures_and_nothing_is_a_dash(peers):
    number = peers("tables").number
    assert [number(value) for value in (1.23456, 0.0123456, float("nan"))] == [
        "1.235",
        "0.012",
        "-",
    ]


def test_the_better_of_two_is_said_with_the_factor(peers):
    times = peers("page")._times
    assert times(0.3, 0.1) == "3.0 times less than"
    assert times(0.1, 0.3) == "3.0 times more than"
    assert times(0.1, 0.105) == "about as much as"
