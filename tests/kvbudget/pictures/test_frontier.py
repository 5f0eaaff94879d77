"""The bound is that of the path, and no plan lies below it."""

from dataclasses import replace

import numpy as np
import pytest

import kvbudget as kvb
from kvbudget.pictures import draw_frontier

SIZE = {"context_tokens": 500}


@pytest.fixture
def path(profile):
    return kvb.solve_path(profile, **SIZE)


@pytest.fixture
def comparison(profile):
    solvers = [kvb.solvers.Uniform(), kvb.solvers.Hull(), kvb.solvers.AdaKV()]
    return kvb.compare(profile, budgets=["10%", "30%", "60%"], solvers=solvers, **SIZE)


def lines(picture):
    (axes,) = picture.figure.axes
    return {line.get_label(): np.array(line.get_data()) for line in axes.get_lines()}


def test_the_bound_is_that_of_the_path_at_every_memory(path):
    memory, loss = lines(draw_frontier(path))["proven bound"]
    assert len(memory) > 300
    assert (memory[0], memory[-1]) == (path.budget_bytes[0], path.budget_bytes[-1])
    wanted = [path.loss_at(int(each)) for each in memory]
    # whole bytes are asked for, so that a step of less than a byte is all that can differ
    assert loss == pytest.approx(wanted, rel=1e-2, abs=1e-9)


def test_the_dots_are_the_plans_of_the_path(path):
    memory, loss = lines(draw_frontier(path))["plans on the bound"]
    assert memory.tolist() == path.budget_bytes.tolist()
    assert loss.tolist() == path.loss.tolist()


def test_every_solver_has_its_marks_and_none_lies_below_the_bound(path, comparison):
    drawn = lines(draw_frontier(path, comparison))
    memory, bound = drawn["proven bound"]
    for solver in ("Uniform", "Hull", "AdaKV"):
        own = [row for row in comparison.rows if row.solver == solver]
        assert drawn[solver].tolist() == [[r.budget_bytes for r in own], [r.loss for r in own]]
        assert (drawn[solver][1] >= np.interp(drawn[solver][0], memory, bound) * (1 - 1e-6)).all()


def test_marks_are_not_joined_by_lines_that_would_cross_the_bound(path, comparison):
    (axes,) = draw_frontier(path, comparison).figure.axes
    styles = {line.get_label(): line.get_linestyle() for line in axes.get_lines()}
    assert [styles[name] for name in ("Uniform", "Hull", "AdaKV")] == ["None"] * 3
    marks = {line.get_label(): line.get_marker() for line in axes.get_lines()}
    assert len({marks[name] for name in ("Uniform", "Hull", "AdaKV")}) == 3


def test_all_plans_that_matter_are_in_the_picture(path, comparison):
    (axes,) = draw_frontier(path, comparison).figure.axes
    low, high = axes.get_ylim()
    losses = [row.loss for row in comparison.rows]
    assert low < min(losses)
    assert high > max(*losses, path.loss[0])


def test_a_large_model_has_no_crowd_of_dots(measured_profile, texts_that_touch):
    path = kvb.solve_path(measured_profile((80, 8)), **SIZE)
    picture = draw_frontier(path)
    assert "plans on the bound" not in lines(picture)
    assert f"{len(path)} plans" in str(picture)
    assert texts_that_touch(picture) == []


def test_the_words_give_the_bound_and_name_the_solvers(path, comparison):
    words = str(draw_frontier(path, comparison))
    whole = path.budget_bytes[-1]
    assert f"{path.loss_at(round(0.25 * whole)):.2g} at 25%" in words
    assert "Uniform" in words
    assert "Hull comes nearest to the bound" in words


def test_a_path_without_a_model_is_drawn_too(said):
    problem = kvb.Problem([[4.0, 1.0, 0.0], [2.0, 1.0, 0.0]], [[1, 2, 3], [1, 2, 3]], 6)
    picture = draw_frontier(kvb.solve_path(problem))
    assert "units without a model" in said(picture)


def test_losses_of_nothing_have_a_scale(profile, recwarn):
    nothing = replace(profile, loss=0 * profile.loss, sample_loss=0 * profile.sample_loss)
    picture = draw_frontier(kvb.solve_path(nothing, **SIZE))
    picture._repr_png_()
    (axes,) = picture.figure.axes
    assert (axes.get_yscale(), axes.get_ylim(), len(recwarn)) == ("linear", (0, 1), 0)


def test_a_path_that_starts_high_tells_its_first_plan(profile):
    limits = (kvb.constraints.LeastTokens(350),)
    path = kvb.solve_path(profile, **SIZE, constraints=limits)
    assert f"Proven bound: {path.loss[0]:.2g} at 70% of" in str(draw_frontier(path))


def test_of_equals_none_is_nearest_and_a_missing_plan_is_no_merit(path, profile):
    solvers = [kvb.solvers.Hull(), kvb.solvers.Greedy()]
    alike = kvb.compare(profile, budgets=["100%"], solvers=solvers, **SIZE)
    assert "nearest" not in str(draw_frontier(path, alike))
    both = kvb.compare(profile, budgets=["10%", "60%"], solvers=solvers, **SIZE)
    rows = tuple(
        replace(row, solver="Late", status=None if row.budget == "10%" else row.status)
        if row.solver == "Greedy"
        else row
        for row in both.rows
    )
    assert "nearest" not in str(draw_frontier(path, replace(both, rows=rows)))


def test_a_comparison_of_something_else_is_refused(path, comparison):
    rows = tuple(replace(row, loss=row.loss / 9, bound=row.bound / 9) for row in comparison.rows)
    with pytest.raises(ValueError, match="must be of the same profile") as caught:
        draw_frontier(path, replace(comparison, rows=rows))
    assert "where the path proves" in str(caught.value)


def test_a_comparison_without_a_plan_is_refused(path, comparison):
    rows = tuple(replace(row, status=None) for row in comparison.rows)
    with pytest.raises(ValueError, match="`comparison` must hold a plan"):
        draw_frontier(path, replace(comparison, rows=rows))
