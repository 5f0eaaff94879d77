import io
import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvbudget.allocator import Comparison, ComparisonRow, Status
from kvbudget.allocator.comparison_plot import describe


def row(solver: str, budget_bytes: int, loss: float, **changes: Any) -> ComparisonRow:
    plain = ComparisonRow(
        solver, f"{budget_bytes // 10}%", loss, loss / 2, 0.5, budget_bytes, 1, 0.0, Status.FEASIBLE
    )
    return replace(plain, **changes)


def picture(comparison: Comparison, path: Path) -> Any:
    comparison.plot(path)
    return np.asarray(Image.open(path).convert("L"), dtype=float)


def many(num_solvers: int, budgets: tuple[int, ...] = (100, 250, 1000)) -> Comparison:
    rows = [
        row(f"Solver{n}", size, 50.0 * (n + 1) / size, bound=(40.0 - n) / size)
        for size in budgets
        for n in range(num_solvers)
    ]
    return Comparison(tuple(rows), model="tiny", measure="divergence")


@pytest.mark.parametrize("kind", ["png", "SVG"])
def test_the_same_comparison_gives_the_same_file(kind: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        many(3).plot(tmp_path / f"{name}.{kind}")
    first = (tmp_path / f"one.{kind}").read_bytes()
    assert first == (tmp_path / f"two.{kind}").read_bytes()
    assert first.startswith(b"\x89PNG" if kind == "png" else b"<?xml")


def test_another_comparison_gives_another_picture(tmp_path: Path) -> None:
    one, other = (picture(many(n), tmp_path / "a.png") for n in (3, 4))
    assert one.shape != other.shape or (one != other).any()


def test_the_picture_says_what_it_shows(tmp_path: Path) -> None:
    many(3).plot(tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    for words in (
        *("Solver0", "Solver1", "Solver2", "proven bound", "tiny", "10%", "100 B", "1000 B"),
        *("loss of the plan (divergence, nats per token)", "memory allowed for all KV caches"),
    ):
        assert f">{words}" in text


def test_the_words_name_the_least_loss_at_each_budget_and_the_bound() -> None:
    rows = (
        row("A", 100, 9.0, bound=3.0),
        row("B", 100, 4.0, bound=2.0),
        row("A", 1000, 1.0, bound=0.5),
        row("B", 1000, 1.0, bound=0.25),
        row("C", 1000, 2.0, status=Status.INFEASIBLE),
    )
    assert describe(Comparison(rows, model="tiny")) == (
        "Loss over memory of plans by 2 solvers for tiny, with the proven bound at each budget."
        " Least loss: at 10% 4 by B, where 3 is the proven bound; at 100% 1 by B, where 0.5 is the"
        " proven bound."
    )
    alone = describe(Comparison(rows[:1]))
    assert alone.startswith("Loss over memory of plans by 1 solver for an unnamed model, ")


def test_the_words_are_in_the_file(tmp_path: Path) -> None:
    many(2).plot(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").text["Description"] == describe(many(2))


def lines_in(comparison: Comparison) -> dict[str, Any]:
    (axes,) = comparison.figure().axes
    return {str(line.get_label()): line for line in axes.get_lines()}


def test_lines_and_bound_go_through_the_rows() -> None:
    comparison = many(3)
    lines = lines_in(comparison)
    for name, line in lines.items():
        own = [each for each in comparison.rows if each.solver == name]
        wanted = [each.loss for each in own] or [*comparison.bounds.values()]
        assert list(line.get_xdata()) == [100, 250, 1000]
        assert list(line.get_ydata()) == wanted


def test_lines_are_told_apart_without_colour() -> None:
    lines = lines_in(many(50)).values()
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 51


def test_the_legend_lists_who_loses_most_first() -> None:
    assert list(lines_in(many(4))) == [f"Solver{n}" for n in (3, 2, 1, 0)] + ["proven bound"]


@pytest.mark.parametrize("num_solvers", [1, 3, 26, 60])
def test_the_legend_lies_beside_the_data_and_inside_the_picture(num_solvers: int) -> None:
    figure = many(num_solvers).figure()
    figure.canvas.draw()
    (axes,), (legend,) = figure.axes, figure.legends
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
    assert figure.bbox.fully_containsx(legend.get_window_extent().x1)
    assert legend.get_window_extent().y0 >= 0
    assert len(legend.get_texts()) == num_solvers + 1
    assert axes.get_window_extent().width > 400


@pytest.mark.parametrize(
    ("losses", "scale"),
    [((8.0, 0.5), "log"), ((8.0, 5.0), "linear"), ((8.0, 0.5, 0.0), "symlog"), ((0.0,), "linear")],
)
def test_the_loss_axis_is_logarithmic_where_that_shows_more(
    losses: tuple[float, ...], scale: str
) -> None:
    rows = [row("A", 100 * n, loss, bound=loss) for n, loss in enumerate(losses, 1)]
    (axes,) = Comparison(tuple(rows)).figure().axes
    assert axes.get_yscale() == scale


@pytest.mark.parametrize("factor", [9, 20, 90, 1e6])
def test_the_loss_axis_has_some_labels(factor: float) -> None:
    rows = (row("A", 100, 2.0 * factor, bound=2.0), row("A", 200, 2.0, bound=2.0))
    figure = Comparison(rows).figure()
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    labels = [*axes.yaxis.get_ticklabels(), *axes.yaxis.get_ticklabels(minor=True)]
    inside = {
        x.get_position()[1] for x in labels if x.get_text() and low <= x.get_position()[1] <= high
    }
    assert len(inside) >= 2


def test_labels_below_the_axis_do_not_touch() -> None:
    figure = many(2, (100, 101, 102, 400, 800, 810)).figure()
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels()]
    assert len(boxes) > 2
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0


def test_rows_without_a_plan_are_left_out() -> None:
    rows = (
        row("A", 100, 8.0),
        row("A", 200, np.inf, status=Status.INFEASIBLE),
        row("B", 100, np.inf, status=None),
    )
    lines = lines_in(Comparison(rows))
    assert set(lines) == {"A", "proven bound"}
    assert list(lines["A"].get_xdata()) == [100]


@pytest.mark.parametrize("method", [Comparison.figure, lambda c: c.plot("a.png")])
def test_nothing_to_draw_is_refused(method: Callable[[Comparison], Any]) -> None:
    with pytest.raises(ValueError, match="`rows` must hold a plan"):
        method(Comparison((row("A", 100, np.inf, status=Status.INFEASIBLE),)))


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.png.txt"])
def test_only_kinds_that_can_be_drawn_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`path` must end in \.png or \.svg"):
        many(1).plot(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(IsADirectoryError):
        many(1).plot(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_the_users_own_figures_and_settings_are_left_alone(tmp_path: Path) -> None:
    code = (
        "import matplotlib, matplotlib.pyplot as plt\n"
        "from kvbudget.allocator import Comparison, ComparisonRow, Status\n"
        "before = dict(matplotlib.rcParams), matplotlib.get_backend(), plt.get_fignums()\n"
        "row = ComparisonRow('A', '1%', 2.0, 1.0, 0.5, 10, 9, 0.0, Status.FEASIBLE)\n"
        "Comparison((row,)).plot('a.svg')\n"
        "after = dict(matplotlib.rcParams), matplotlib.get_backend(), plt.get_fignums()\n"
        "print(before == after)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr


def test_the_figure_can_be_changed_before_it_is_saved() -> None:
    figure = many(2).figure()
    figure.axes[0].set_title("mine")
    content = io.BytesIO()
    figure.savefig(content, format="pdf")
    assert content.getvalue().startswith(b"%PDF")
