"""What every measure holds, and the names of measures."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import CutView, measures, settings_of

MakeCutView = Callable[..., CutView]


@pytest.mark.parametrize("name", measures.names())
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    hidden=st.sampled_from([2, 40]),
    window=st.none() | st.integers(1, 30),
    sinks=st.booleans(),
    kept=st.lists(st.integers(0, 9), max_size=4),
)
def test_loss_is_never_negative_and_exactly_zero_where_everything_is_kept(
    name: str,
    seed: int,
    kv_heads: int,
    group: int,
    hidden: int,
    window: int | None,
    sinks: bool,
    kept: list[int],
    make_cut_view: MakeCutView,
) -> None:
    view = make_cut_view(
        seed=seed,
        kv_heads=kv_heads,
        group=group,
        hidden=hidden,
        context=9,
        kept_tokens=(*sorted(kept), 9),
        window=window,
        sinks=sinks,
    )
    loss = measures.get(name)().loss(view)
    assert loss.shape == (kv_heads, len(kept) + 1)
    assert loss.dtype == torch.float64
    assert loss.isfinite().all()
    assert (loss >= 0).all()
    assert (loss[:, -1] == 0).all()


@pytest.mark.parametrize("name", measures.names())
def test_keeping_less_costs_something(name: str, make_cut_view: MakeCutView) -> None:
    assert (measures.get(name)().loss(make_cut_view())[:, 0] > 1e-3).all()


@pytest.mark.parametrize("name", measures.names())
def test_loss_does_not_depend_on_how_future_queries_are_chunked(
    name: str, make_cut_view: MakeCutView, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = make_cut_view(future=200)
    whole = measures.get(name)().loss(view)
    cuts = CutView.cuts
    monkeypatch.setattr(CutView, "cuts", lambda self: cuts(self, chunk=7))
    torch.testing.assert_close(measures.get(name)().loss(view), whole)


@pytest.mark.parametrize("name", measures.names())
@pytest.mark.parametrize("sinks", [False, True])
def test_loss_stays_on_the_device_of_the_view(
    name: str, sinks: bool, make_cut_view: MakeCutView
) -> None:
    view = make_cut_view(sinks=sinks)
    tensors = {field.name: getattr(view, field.name) for field in fields(view)}
    # a tensor made on the CPU cannot be mixed with one on the meta device
    moved: dict[str, Any] = {
        key: each.to("meta") for key, each in tensors.items() if isinstance(each, Tensor)
    }
    assert measures.build(name).loss(replace(view, **moved)).device.type == "meta"


@pytest.mark.parametrize("name", measures.names())
def test_a_measure_knows_its_name_and_can_be_rebuilt(name: str) -> None:
    measure = measures.build(name)
    assert measure.name == name
    assert measures.build(name, settings_of(measure)) == measure


def test_a_measure_of_ones_own_can_be_registered_for_a_while(make_cut_view: MakeCutView) -> None:
    @dataclass(frozen=True)
    class Dropped(measures.Measure):
        def loss(self, view: CutView) -> Tensor:
            share = 1 - torch.tensor(view.kept_tokens, dtype=torch.float64) / view.context
            return share.expand(view.keys.shape[0], -1)

    before = measures.names()
    with measures.registration_scope():
        measures.register("dropped")(Dropped)
        assert measures.build("dropped").name == "dropped"
        assert Dropped().loss(make_cut_view())[0].tolist() == [0.95, 0.8, 0.5, 0.0]
    assert measures.names() == before


def test_a_heuristic_is_not_a_measure() -> None:
    with pytest.raises(TypeError, match="`measure` must be a subclass of Measure, but got"):
        measures.register("not_a_measure")(int)
    with pytest.raises(
        ValueError, match="one of ablation, attention_mass, divergence, output_error, but"
    ):
        measures.get("key_norm")
