"""What the page divides is what `allocate` divides: the same plan, to the last bit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kvbudget as kvb
from kvbudget import constraints as limits

Ask = tuple[str, int, int]
GRID = kvb.Geometry("LlamaForCausalLM", 5, 3, 64, 64, "bfloat16", (None,) * 5)
RAGGED = kvb.Geometry.of_layers(
    "MixedForCausalLM",
    [kvb.CacheShape(3, 16, 16), kvb.CacheShape(1, 64, 32), kvb.CacheShape(2, 16, 16)],
    "float16",
    (None, 96, None),
)
CONSTRAINTS: dict[str, tuple[Any, ...]] = {
    "none": (),
    "least": (limits.LeastTokens(40), limits.LeastTokens(90, layers=(1,))),
    "most": (limits.MostTokens(700), limits.MostTokens(500, kv_heads=(0,))),
    "protected": (limits.Protected(layers=(2,)), limits.Protected(kv_heads=(0,))),
    "equal": (limits.EqualInLayer(),),
    "equal in some": (limits.EqualInLayer(layers=(0, 2)), limits.LeastTokens(30)),
    "pages": (limits.WholePages(16), limits.WholePages(24)),
    "all": (
        limits.EqualInLayer(),
        limits.LeastTokens(33),
        limits.MostTokens(900),
        limits.WholePages(8),
    ),
}
ASKS: list[Ask] = [
    (budget, context, batch)
    for context, batch in ((1000, 1), (1, 1), (100, 3), (4096, 2), (131_072, 16))
    for budget in ("7.3%", "25%", "61.5%", "100%", "300 tokens", "1.5MiB", "654321", "0.75 GB")
]


def profiles() -> dict[str, kvb.Profile]:
    """Measured-looking losses, losses with ties, and losses of nothing."""
    smooth, ragged = make(GRID, 1), make(RAGGED, 2)
    return {
        "grid": smooth,
        "ragged": ragged,
        "ties": with_loss(smooth, np.round(smooth.loss, 1)),
        "nothing": with_loss(smooth, np.zeros_like(smooth.loss)),
        "straight": straight(),
        # 0.57 of 100 tokens are a little less than 57 in floating point
        "decimal": replace(make(GRID, 5, levels=5), kept_fraction=(0.07, 0.29, 0.57, 0.58, 1.0)),
    }


def straight() -> kvb.Profile:
    """Straight curves of equal worth: inner levels are no corners, and the order matters."""
    shares = np.arange(1, 9) / 8
    need = 2.0 ** -(np.arange(15) % 3).reshape(5, 3, 1)
    profile = make(GRID, 4, levels=8)
    return replace(with_loss(profile, need * (1 - shares)), kept_fraction=shares)


def make(geometry: kvb.Geometry, seed: int, levels: int = 14) -> kvb.Profile:
    draw = np.random.default_rng(seed)
    shares = np.append(np.sort(draw.uniform(0.005, 0.97, levels - 1)), 1.0)
    need = np.exp(draw.normal(-3, 2, (geometry.layers, geometry.kv_heads, 1)))
    loss = need * (1 / shares - 1) ** 0.7 * np.exp(draw.normal(0, 0.3, (*need.shape[:2], levels)))
    loss[~geometry.present] = 0
    return kvb.Profile(
        loss=loss,
        sample_loss=loss[None],
        kept_fraction=shares,
        geometry=geometry,
        model='mødel "x" </script> \x7f',
        heuristic="observation_window",
        heuristic_settings=(("window", 32), ("share", 1e-5), ("whole", 1.0), ("on", True)),
        measure="divergence",
    )


def with_loss(profile: kvb.Profile, loss: np.ndarray) -> kvb.Profile:
    return replace(profile, loss=loss, sample_loss=loss[None])


def expected(profile: kvb.Profile, ask: Ask, constraints: tuple[Any, ...]) -> kvb.Plan | None:
    """What `kvbudget allocate` gives; None where nothing fits."""
    from kvbudget.commands.named import read_budget

    budget, context, batch = ask
    try:
        return kvb.allocate(
            profile,
            budget=read_budget(budget),
            context_tokens=context,
            batch_size=batch,
            constraints=constraints,
        )
    except kvb.InfeasibleBudget:
        return None


def answers(page: Any, asks: Sequence[Ask]) -> list[str]:
    texts: list[str] = page.execute_script(
        "return arguments[0].map((ask) => kvbudgetPlan(...ask))", asks
    )
    return texts


@pytest.mark.parametrize("constraints", CONSTRAINTS)
@pytest.mark.parametrize("name", ["grid", "ragged"])
def test_every_plan_of_the_page_is_the_one_of_the_library(
    show: Callable[..., Any], tmp_path: Path, name: str, constraints: str
) -> None:
    check_plans(show, tmp_path, profiles()[name], CONSTRAINTS[constraints], least=15)


@pytest.mark.parametrize("name", ["ties", "nothing", "straight", "decimal"])
def test_ties_and_rounding_are_those_of_the_library(
    show: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    check_plans(show, tmp_path, profiles()[name], (), least=15)


def check_plans(
    show: Callable[..., Any],
    folder: Path,
    profile: kvb.Profile,
    constraints: tuple[Any, ...],
    least: int,
) -> None:
    plan = kvb.allocate(profile, budget="100%", context_tokens=2000, constraints=constraints)
    page, found = show(plan), 0
    for ask, text in zip(ASKS, answers(page, ASKS), strict=True):
        wanted = expected(profile, ask, constraints)
        if wanted is None:
            assert "Nothing fits" in text or "no level" in text, ask
            continue
        file = folder / "plan.json"
        file.write_text(text, encoding="ascii")
        assert kvb.Plan.load(file) == wanted, ask
        found += 1
    assert found >= least


def test_another_context_is_what_the_plan_gives_for_it(
    show: Callable[..., Any], tmp_path: Path
) -> None:
    plan = kvb.allocate(profiles()["grid"], budget="60%", context_tokens=1000, batch_size=2)
    page = show(plan)
    for context in (500, 1500, 6000):
        (text,) = answers(page, [(f"{plan.budget_bytes} B", context, 2)])
        (tmp_path / "plan.json").write_text(text, encoding="ascii")
        assert kvb.Plan.load(tmp_path / "plan.json") == plan.at(context)


def test_a_large_model_is_divided_alike_and_at_once(
    show: Callable[..., Any], tmp_path: Path
) -> None:
    geometry = kvb.Geometry("LlamaForCausalLM", 80, 8, 128, 128, "bfloat16", (None,) * 80)
    profile = make(geometry, 3, levels=40)
    plan = kvb.allocate(profile, budget="12%", context_tokens=131_072)
    page = show(plan)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    (text,) = answers(page, [("17.5%", 32_768, 3)])
    (tmp_path / "plan.json").write_text(text, encoding="ascii")
    assert kvb.Plan.load(tmp_path / "plan.json") == expected(profile, ("17.5%", 32_768, 3), ())
