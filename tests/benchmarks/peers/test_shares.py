"""Who is run on the finer grid."""

import json

import pytest


@pytest.fixture
def folder(tmp_path):
    """Needles of presses that find more and more, of one that masks, of one that holds twice."""

    def row(name, kept, exact, held):
        about = {"name": name, "kept": kept, "kind": "needles", "number": 0}
        return about | {"exact": [exact, 1], "held_bytes": held, "divergence": 0.1}

    rows = [row("full cache", 1.0, 1, 1000), row("masks", 0.5, 1, 1000), row("twice", 0.5, 1, 2000)]
    rows += [row(f"press {number}", 0.5, int(number > 3), 500) for number in range(8)]
    rows += [{**row("press 7", 0.25, 1, 250)}, {**row("press 4", 0.25, 0, 250)}]
    (tmp_path / "kvpress.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return tmp_path


def test_only_presses_that_free_are_run_on_the_grid_best_first(peers, folder):
    found = peers("shares").grid_contenders(folder)
    assert len(found) == peers("shares").GRID_PRESSES
    assert found[:3] == ["press 5", "press 6", "press 7"]
    assert found[3] == "press 4"
    assert not {"masks", "twice", "full cache"} & set(found)


def test_the_grid_reads_needles_only(peers, trial):
    module = peers("trial")
    books = module.PeerTrial("test", "books", 0, (1,), (2,), ())
    assert peers("shares").grid_trials([books, trial]) == [trial]
