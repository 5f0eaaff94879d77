"""The page in a browser: what is moved, typed and clicked, and what is then to be read."""

import itertools
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kvbudget as kvb
from kvbudget.allocator import format_bytes

Show = Callable[..., Any]


def text(page: Any, name: str) -> str:
    return page.find_element("id", name).text


def move(page: Any, tenths: int) -> None:
    """Move the slider as a hand does."""
    page.execute_script(
        "const s = document.getElementById('slider'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input', {bubbles: true}));",
        tenths,
    )


def type_in(page: Any, name: str, value: object) -> None:
    from selenium.webdriver.common.keys import Keys

    field = page.find_element("id", name)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(f"{value}{Keys.ENTER}")


def table(page: Any) -> list[list[str]]:
    rows: list[list[str]] = page.execute_script(
        "return [...document.querySelectorAll('tbody tr')].map("
        "(row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return rows


def tokens_in(rows: list[list[str]]) -> list[int]:
    return [int(row[2].replace(",", "")) for row in rows]


def check_shown(page: Any, plan: kvb.Plan) -> None:
    """What stands in the page is what stands in a plan."""
    full = plan.geometry.full_bytes(plan.context_tokens, plan.batch_size)
    assert text(page, "used") == format_bytes(plan.used_bytes)
    assert format_bytes(plan.budget_bytes) in text(page, "used-note")
    assert format_bytes(full) in text(page, "used-note")
    assert text(page, "loss") == f"{plan.loss:.4g}"
    assert text(page, "bound") == f"{plan.bound:.4g}"
    assert text(page, "gap") == (f"{100 * plan.gap:.2g} %" if plan.gap else "0 %")
    assert tokens_in(table(page)) == plan.capacity_tokens[plan.geometry.present].tolist()
    texts = page.execute_script(
        "return [...document.querySelectorAll('#map text[data-cache]')].map((t) => t.textContent)"
    )
    assert texts == [str(each) for each in plan.capacity_tokens.ravel().tolist()]


def test_at_first_the_page_shows_the_plan_in_the_file(show: Show, profile: kvb.Profile) -> None:
    exact = kvb.allocate(profile, budget="22.2%", context_tokens=1000, solver=kvb.solvers.Exact())
    page = show(exact)
    check_shown(page, exact)
    assert "found by Exact (optimal)" in text(page, "shown")
    assert not page.find_element("id", "plain").is_displayed()
    assert "divides as many bytes with Hull" in text(page, "command-intro")


def test_the_slider_moves_and_every_number_follows(
    show: Show, profile: kvb.Profile, plan: kvb.Plan
) -> None:
    page = show(plan, profile)
    check_shown(page, plan)
    for tenths in (48, 333, 700, 1000):
        move(page, tenths)
        wanted = kvb.allocate(profile, budget=f"{tenths / 10}%", context_tokens=1000)
        check_shown(page, wanted)
        assert page.find_element("id", "budget").get_property("value") == f"{tenths / 10:g}%"
    page.find_element("id", "as-filed").click()
    check_shown(page, plan)


def test_the_slider_ends_where_the_path_does(
    show: Show, profile: kvb.Profile, plan: kvb.Plan
) -> None:
    page = show(plan)
    slider = page.find_element("id", "slider")
    path = kvb.solve_path(profile, context_tokens=1000)
    assert int(slider.get_attribute("min")) == pytest.approx(1000 * path.kept_fraction[0], abs=1)
    assert int(slider.get_attribute("max")) == pytest.approx(1000 * path.kept_fraction[-1], abs=1)
    move(page, 0)
    lowest = plan.geometry.capacity_tokens([profile.kept_fraction[0]], 1000)[..., 0]
    assert tokens_in(table(page)) == lowest.ravel().tolist()


def test_keys_alone_are_enough(show: Show, profile: kvb.Profile, plan: kvb.Plan) -> None:
    from selenium.webdriver.common.keys import Keys

    page = show(plan)
    slider = page.find_element("id", "slider")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    check_shown(page, kvb.allocate(profile, budget="25.2%", context_tokens=1000))
    assert slider.get_attribute("aria-valuetext").startswith("25.2")
    grid = page.find_element("css selector", "#map svg")
    before = text(page, "cell")
    layer, head = map(int, re.findall(r"\d+", before)[:2])
    grid.send_keys(Keys.ARROW_UP if head else Keys.ARROW_DOWN)
    assert text(page, "cell") != before
    reached = f"ayer {layer}, KV head {head - 1 if head else 1}"
    assert text(page, "cell").startswith(f"L{reached}:")
    assert text(page, "curve-title") == f"One cache: l{reached}"


def test_every_step_of_the_slider_goes_on_where_shares_are_no_whole_bytes(
    show: Show, profile: kvb.Profile
) -> None:
    from selenium.webdriver.common.keys import Keys

    page = show(kvb.allocate(profile, budget="25%", context_tokens=1024))
    slider, places = page.find_element("id", "slider"), []
    for _ in range(5):
        slider.send_keys(Keys.ARROW_RIGHT)
        places.append(slider.get_property("value"))
    assert places == ["251", "252", "253", "254", "255"]
    check_shown(page, kvb.allocate(profile, budget="25.5%", context_tokens=1024))
    type_in(page, "budget", "1600000")
    assert slider.get_property("value") == str(1_600_000 * 1000 // (1024 * 6 * 4 * 256))


def test_a_refused_context_leaves_the_pictures_as_they_were(
    show: Show, resize: Callable[..., None], plan: kvb.Plan
) -> None:
    page = show(plan)
    type_in(page, "budget", "300000")
    front = page.find_element("id", "front").get_attribute("innerHTML")
    type_in(page, "context", 100_000)
    assert "Nothing fits" in text(page, "refusal")
    resize(page, (1000, 900))
    assert page.find_element("id", "front").get_attribute("innerHTML") != front
    resize(page, (1280, 900))
    assert page.find_element("id", "front").get_attribute("innerHTML") == front


def test_the_console_refuses_what_the_fields_refuse(show: Show, plan: kvb.Plan) -> None:
    page = show(plan)
    for asked in (("25%", 0), ("25%", 1.5), ("25%", 100, 0), ("25%", "many")):
        said = page.execute_script("return kvbudgetPlan(...arguments)", *asked)
        assert "is a whole number of at least 1." in said


def test_context_and_batch_are_solved_anew(
    show: Show, profile: kvb.Profile, plan: kvb.Plan
) -> None:
    page = show(plan)
    for context, batch in ((1000, 4), (333, 1), (32_768, 2)):
        type_in(page, "context", context)
        type_in(page, "batch", batch)
        wanted = kvb.allocate(profile, budget="25%", context_tokens=context, batch_size=batch)
        assert text(page, "used") == format_bytes(wanted.used_bytes)
        assert tokens_in(table(page)) == wanted.capacity_tokens.ravel().tolist()
        assert text(page, "loss") == f"{wanted.loss:.4g}"


def test_a_budget_can_be_typed_in_any_form(
    show: Show, profile: kvb.Profile, plan: kvb.Plan
) -> None:
    page = show(plan)
    forms = (("1.5 MiB", "1.5MiB"), ("300 tokens", kvb.Tokens(300)), ("700000", 700_000))
    for typed, budget in forms:
        type_in(page, "budget", typed)
        check_shown(page, kvb.allocate(profile, budget=budget, context_tokens=1000))


REFUSED = (
    ("budget", "much", "Write a share such as 25%"),
    ("budget", "101%", "at most 100%"),
    ("budget", "0", "at least one byte"),
    ("budget", "1KiB", "the smallest plan needs"),
    ("context", "0", "The context is a whole number"),
    ("context", "1e15", "more bytes than a page can count"),
    ("batch", "1.5", "The batch size is a whole number"),
)


def test_what_cannot_be_used_is_said_and_the_plan_stays(show: Show, plan: kvb.Plan) -> None:
    page = show(plan)
    for field, typed, said in REFUSED:
        type_in(page, field, typed)
        assert said in text(page, "refusal")
        assert page.find_element("id", field).get_attribute("aria-invalid") == "true"
        assert tokens_in(table(page)) == plan.capacity_tokens.ravel().tolist()
        page.find_element("id", "as-filed").click()
        assert text(page, "refusal") == ""
        assert page.find_element("id", field).get_attribute("aria-invalid") is None
    check_shown(page, plan)


def test_what_was_wrong_is_forgotten_once_it_is_right(
    show: Show, profile: kvb.Profile, plan: kvb.Plan
) -> None:
    page = show(plan)
    for typed, wrong in (("1 B", "true"), ("30%", None)):
        type_in(page, "budget", typed)
        assert page.find_element("id", "budget").get_attribute("aria-invalid") == wrong
        assert page.find_element("id", "refusal").is_displayed() == bool(wrong)
    check_shown(page, kvb.allocate(profile, budget="30%", context_tokens=1000))


def test_memory_used_is_that_of_tokens_where_pages_are_handed_out(
    show: Show, profile: kvb.Profile
) -> None:
    pages = (kvb.constraints.WholePages(48),)
    page = show(kvb.allocate(profile, budget="100%", context_tokens=500, constraints=pages))
    move(page, 950)
    wanted = kvb.allocate(profile, budget="95%", context_tokens=500, constraints=pages)
    assert any(wanted.capacity_tokens.ravel() % 48)
    check_shown(page, wanted)
    assert "--page-tokens 48 --budget" in text(page, "command")


def test_columns_sort_both_ways(show: Show, plan: kvb.Plan) -> None:
    page = show(plan)
    kept = plan.capacity_tokens.ravel().tolist()
    heads = page.find_elements("css selector", "th")
    buttons = page.find_elements("css selector", "th button")
    buttons[2].click()
    assert tokens_in(table(page)) == sorted(kept, reverse=True)
    assert [head.get_attribute("aria-sort") for head in heads].index("descending") == 2
    buttons[2].click()
    assert tokens_in(table(page)) == sorted(kept)
    buttons[0].click()
    assert tokens_in(table(page)) == kept


def test_losses_in_the_table_are_those_of_the_profile(
    show: Show, profile: kvb.Profile, plan: kvb.Plan
) -> None:
    page = show(plan)
    capacity = plan.geometry.capacity_tokens(profile.kept_fraction, 1000)
    for row, unit in zip(table(page), range(24), strict=True):
        layer, head = divmod(unit, 4)
        level = int((capacity[layer, head] == plan.capacity_tokens[layer, head]).argmax())
        assert row[:2] == [str(layer), str(head)]
        assert float(row[5]) == pytest.approx(profile.loss[layer, head, level], rel=0.01)
        assert float(row[6]) == pytest.approx(profile.loss[layer, head, 0], rel=0.01)


def test_the_download_and_the_command_make_the_plan_that_is_shown(
    show: Show, profile: kvb.Profile, plan: kvb.Plan, tmp_path: Path
) -> None:
    page = show(plan, profile)
    move(page, 155)
    wanted = kvb.allocate(profile, budget="15.5%", context_tokens=1000)
    file = page.downloads / "plan.json"
    file.unlink(missing_ok=True)
    page.find_element("id", "download").click()
    wait_for(file)
    assert kvb.Plan.load(shutil.move(file, tmp_path / "plan.json")) == wanted
    budget = f"--budget {wanted.budget_bytes} --context 1000 --out plan.json"
    assert text(page, "command") == f"kvbudget allocate profile.safetensors {budget}"


def wait_for(file: Path) -> None:
    end = time.monotonic() + 100
    while not file.exists():
        assert time.monotonic() < end, "nothing was downloaded"
        time.sleep(0.05)


def test_the_plan_in_the_file_can_be_taken_away_unchanged(
    show: Show, profile: kvb.Profile, tmp_path: Path
) -> None:
    exact = kvb.allocate(profile, budget="31%", context_tokens=777, solver=kvb.solvers.Exact())
    solver = 'Løser(text="\\\x7f")'
    exact = replace(exact, certificate=replace(exact.certificate, solver=solver))
    page = show(exact)
    file = page.downloads / "plan.json"
    page.find_element("id", "download").click()
    wait_for(file)
    assert kvb.Plan.load(shutil.move(file, tmp_path / "plan.json")) == exact


def test_equal_shares_stand_beside(show: Show, profile: kvb.Profile, plan: kvb.Plan) -> None:
    page = show(plan)
    solution = kvb.solve(
        kvb.Problem.from_profile(profile, budget="25%", context_tokens=1000), kvb.solvers.Uniform()
    )
    times = f"{solution.loss / plan.loss:.3g} times as much"
    assert f"every cache keeping 25 %: {solution.loss:.3g}, {times}" in text(page, "loss-note")


def test_equal_shares_are_as_equal_as_constraints_let_them_be(
    show: Show, profile: kvb.Profile
) -> None:
    limits = (kvb.constraints.Protected(layers=(0,)),)
    size = {"context_tokens": 1000, "constraints": limits}
    page = show(kvb.allocate(profile, budget="40%", **size))
    problem = kvb.Problem.from_profile(profile, budget="40%", **size)
    loss = kvb.solve(problem, kvb.solvers.Uniform()).loss
    assert f"where the constraints let it: {loss:.3g}" in text(page, "loss-note")


def test_a_plan_of_equal_shares_loses_as_much_as_equal_shares(
    show: Show, profile: kvb.Profile
) -> None:
    page = show(
        kvb.allocate(profile, budget="25%", context_tokens=1000, solver=kvb.solvers.Uniform())
    )
    assert text(page, "loss-note").endswith(", as much; never checked")


def test_the_chart_puts_the_plan_on_the_frontier(
    show: Show, profile: kvb.Profile, plan: kvb.Plan
) -> None:
    page = show(plan, profile)
    filed = page.find_element("css selector", "#front .filed")
    assert filed.get_attribute("visibility") == "hidden"
    places = []
    for tenths in (100, 300, 600):
        move(page, tenths)
        here = page.find_element("css selector", "#front .here")
        places.append([float(here.get_attribute(name)) for name in ("cx", "cy")])
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x0 < x1 < x2
    assert y0 < y1 < y2  # less loss is further down
    assert (x2 - x1) / (x1 - x0) == pytest.approx(1.5, rel=0.01)
    path = page.find_element("css selector", "#front .front").get_attribute("d")
    points = [tuple(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", path)]
    nearest = min(points, key=lambda point: abs(point[0] - x1))
    assert nearest[1] == pytest.approx(y1, abs=3)
    assert filed.get_attribute("visibility") == "visible"
    assert len(page.find_elements("css selector", "#front .band")) == 1


def test_the_check_is_drawn_and_judged(
    show: Show, profile: kvb.Profile, check: kvb.ProfileCheck
) -> None:
    page = show(kvb.allocate(replace(profile, check=check), budget="25%", context_tokens=1000))
    solved = page.find_elements("css selector", "#check svg .solved")
    assert len(page.find_elements("css selector", "#check svg .random")) == len(solved) == 10
    places = [[float(each.get_attribute(name)) for name in ("cx", "cy")] for each in solved]
    # both losses of the solved plans rise by the same factor from one to the next
    for axis, sign in ((0, 1), (1, -1)):
        steps = [sign * (b[axis] - a[axis]) for a, b in itertools.pairwise(places)]
        assert steps == pytest.approx([steps[0]] * 9, rel=0.01)
        assert steps[0] > 0
    assert "it holds" in page.find_element("css selector", ".verdict").text
    assert str(check) in text(page, "check-note")


def test_plans_that_cannot_be_divided_in_a_page_say_why(show: Show, profile: kvb.Profile) -> None:
    cvar = kvb.allocate(profile, budget="25%", context_tokens=1000, risk=kvb.CVaR(0.5))
    page = show(cvar)
    assert "made for the risk CVaR" in text(page, "obstacle")
    assert not page.find_element("id", "controls").is_displayed()
    assert not page.find_element("id", "download").is_displayed()
    check_shown(page, cvar)
    assert "made for the risk" in page.execute_script("return kvbudgetPlan('25%')")


def test_a_plan_without_losses_has_a_map_and_a_table_of_tokens(
    show: Show, profile: kvb.Profile, plan: kvb.Plan
) -> None:
    old = replace(plan, curves=None)
    page = show(old)
    assert "does not hold the losses" in text(page, "obstacle")
    check_shown(page, old)
    assert len(table(page)[0]) == 5
    page = show(old, profile)
    assert not page.find_element("id", "obstacle").is_displayed()
    move(page, 400)
    check_shown(page, kvb.allocate(profile, budget="40%", context_tokens=1000))


def test_names_that_are_markup_stay_names(show: Show, profile: kvb.Profile) -> None:
    name = '</script><img src=x onerror="window.hurt=1"><b>{{DATA}}&amp;\''
    bad = replace(profile, model=name, made_by=name, heuristic=name)
    page = show(kvb.allocate(bad, budget="25%", context_tokens=1000), bad)
    assert page.find_element("css selector", "h1").text == name
    assert page.execute_script("return window.hurt") is None
    assert page.find_elements("css selector", "img, b") == []
    assert json.loads(page.execute_script("return kvbudgetPlan('30%')"))["model"] == name
