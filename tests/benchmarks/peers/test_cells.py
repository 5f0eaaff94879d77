"""Rows of a run become cells, and cells survive a file."""

import json

import pytest


@pytest.fixture
def folder(tmp_path):
    """The journals of a small run."""

    def row(name, kept, number, **more):
        about = {"name": name, "kept": kept, "kind": "needles", "number": number}
        figures = {"divergence": 0.5 * (1 - kept), "loss": 2.0, "exact": [1, 0], "block": 16}
        size = {"held_bytes": 1000, "used_bytes": int(1000 * kept)}
        return about | figures | size | more

    rows = [row("full cache", 1.0, 0), row("full cache", 1.0, 1), row("A", 0.25, 1)]
    rows += [{**row("A", 0.25, 0), "divergence": 0.1, "held_bytes": 900}]
    rows += [{"name": "A", "kept": 0.5, "kind": "needles", "number": 0, "error": "ValueError: no"}]
    cost = {"prefill_s": 1.0, "token_s": 1.0, "peak_bytes": 400, "alive_bytes": 100}
    for name, factor in (("full cache", 1), ("A", 2)):
        about = {"name": name, "kept": 0.25, "kind": "cost", "number": 0}
        rows.append(about | {field: factor * value for field, value in cost.items()})
    text = "".join(json.dumps(each) + "\n" for each in rows)
    (tmp_path / "kvpress.jsonl").write_text(text)
    return tmp_path


def test_prompts_of_a_kind_are_brought_together_in_order(peers, folder):
    cells, _ = peers("cells").summarise(folder)
    (found,) = [each for each in cells if (each.name, each.kept) == ("A", 0.25)]
    assert found.divergence == (0.1, 0.375)
    assert (found.exact, found.answers, found.block) == (2, 4, 16)
    assert (found.held_share, found.used_share) == (1.0, 0.25)


def test_failures_are_counted_and_are_no_figures(peers, folder):
    cells, _ = peers("cells").summarise(folder)
    (found,) = [each for each in cells if (each.name, each.kept) == ("A", 0.5)]
    assert found.errors == {"ValueError: no": 1}
    assert found.divergence == ()


def test_costs_are_over_those_of_the_full_cache(peers, folder):
    _, (found,) = peers("cells").summarise(folder)
    assert (found.name, found.prefill_ratio, found.peak_ratio) == ("A", 2, 2)


def test_cells_and_costs_come_back_from_their_file(peers, folder):
    module, path = peers("cells"), folder / "rows.jsonl"
    cells, costs = module.summarise(folder)
    written = [each for each in cells if each.divergence]
    module.write_cells(path, written, costs, {"kvpress": "0.5.5"})
    assert module.read_cells(path) == (written, costs)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all({"commit", "machine", "seed", "versions"} <= set(row) for row in rows)
    assert rows[0]["versions"] == {"kvpress": "0.5.5"}
