import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import DEFAULT_LEVELS, BadFile, Geometry, Plan, Profile, allocate
from kvbudget.allocator.constraints import EqualInLayer, LeastTokens, Protected, WholePages
from kvbudget.allocator.envelope import seal


@pytest.fixture(scope="session")
def saved(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved plan."""
    path = tmp_path_factory.mktemp("plans") / "good.json"
    plan.save(path)
    return path


@pytest.fixture(scope="session")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place to write damaged files to."""
    return tmp_path_factory.mktemp("damaged") / "plan.json"


def load_damaged(spare: Path, content: bytes, plan: Plan) -> None:
    """Load must give an equal value or say which file is bad, and nothing else."""
    spare.write_bytes(content)
    try:
        loaded: Plan | str = Plan.load(spare)
    except BadFile as error:
        loaded = str(error)
    if isinstance(loaded, str):
        assert str(spare) in loaded
    else:
        assert loaded == plan


def forge(path: Path, saved: Path, changes: dict[str, Any]) -> None:
    """Write a well sealed file with other fields; ``...`` removes one."""
    record = {**json.loads(saved.read_text()), **changes}
    for name in ("format", "version", "sha256"):
        record.pop(name)
    content = {name: value for name, value in record.items() if value is not ...}
    path.write_text(seal("kvbudget-plan", 2, content))


def test_a_saved_plan_loads_equal(plan: Plan, saved: Path) -> None:
    assert Plan.load(saved) == plan
    assert Plan.load(str(saved)) == plan
    assert Plan.load(saved).capacity_tokens.dtype == np.int64


@settings(deadline=None, max_examples=30)
@given(model=st.text(), loss=st.floats(0, 1e300), seed=st.integers(0, 2**32))
def test_any_plan_survives_the_round_trip(
    plan: Plan, spare: Path, model: str, loss: float, seed: int
) -> None:
    capacity = np.random.default_rng(seed).integers(1, 30, (3, 2))
    certificate = replace(plan.certificate, loss=loss)
    changed = replace(plan, model=model, capacity_tokens=capacity, certificate=certificate)
    changed.save(spare)
    assert Plan.load(spare) == changed


def test_the_file_is_json_that_people_can_read(plan: Plan, saved: Path) -> None:
    record = json.loads(saved.read_text(encoding="ascii"))
    assert (record["format"], record["version"]) == ("kvbudget-plan", 2)
    assert record["capacity_tokens"] == plan.capacity_tokens.tolist()
    assert record["certificate"]["solver"] == "Hull"
    assert record["certificate"]["risk"] == "Mean()"
    assert plan.curves is not None
    assert record["curves"]["loss"] == plan.curves.loss.tolist()


def test_every_truncation_is_a_bad_file(saved: Path, spare: Path) -> None:
    content = saved.read_bytes().rstrip()
    for length in range(len(content)):
        spare.write_bytes(content[:length])
        with pytest.raises(BadFile, match=r"plan.json is not a usable plan: "):
            Plan.load(spare)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_flipped_bytes_never_pass_as_another_plan(
    plan: Plan, saved: Path, spare: Path, data: st.DataObject
) -> None:
    content = bytearray(saved.read_bytes())
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=3)):
        content[place] ^= data.draw(st.integers(1, 255))
    load_damaged(spare, bytes(content), plan)


def test_no_single_flip_passes_as_another_plan(plan: Plan, saved: Path, spare: Path) -> None:
    content = saved.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        load_damaged(spare, bytes(flipped), plan)


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=200) | st.text().map(str.encode))
def test_random_content_is_a_bad_file(spare: Path, content: bytes) -> None:
    spare.write_bytes(content)
    with pytest.raises(BadFile, match="is not a usable plan"):
        Plan.load(spare)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"^No file at .*none: check the path of the plan"):
        Plan.load(tmp_path / "none")
    with pytest.raises(BadFile, match="is a folder, not a plan"):
        Plan.load(tmp_path)


def test_an_empty_file_and_deep_nesting_are_refused(tmp_path: Path) -> None:
    for content in ("", "[" * 10**6, '{"a":' * 10**5):
        (tmp_path / "x").write_text(content)
        with pytest.raises(BadFile, match="it does not hold JSON"):
            Plan.load(tmp_path / "x")


def test_a_plan_and_a_profile_are_told_apart(plan: Plan, profile: Profile, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan")
    profile.save(tmp_path / "profile")
    with pytest.raises(BadFile, match=r"is not a usable plan: .* which Profile.load reads"):
        Plan.load(tmp_path / "profile")
    with pytest.raises(BadFile, match=r"is not a usable profile: .* which Plan.load reads"):
        Profile.load(tmp_path / "plan")


def test_a_newer_file_is_refused_as_newer(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(saved.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(BadFile, match="was written by a newer version"):
        Plan.load(tmp_path / "x")


def test_an_edited_file_is_refused_as_edited(saved: Path, plan: Plan, tmp_path: Path) -> None:
    text = saved.read_text().replace(
        f'"budget_bytes": {plan.budget_bytes}', '"budget_bytes": 9999999'
    )
    (tmp_path / "x").write_text(text)
    with pytest.raises(BadFile, match="damaged or edited"):
        Plan.load(tmp_path / "x")


FIELDS = (
    *("capacity_tokens", "context_tokens", "batch_size", "budget_bytes", "certificate"),
    *("geometry", "model", "heuristic", "heuristic_settings", "measure", "made_by"),
)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [..., None, 1.5, True, "3" * 100, [[3.5]]])
def test_a_field_that_is_missing_or_of_another_type_is_named(
    saved: Path, tmp_path: Path, name: str, value: Any
) -> None:
    if isinstance(value, str) and name in ("model", "heuristic", "measure", "made_by"):
        value = {}
    forge(tmp_path / "x", saved, {name: value})
    with pytest.raises(BadFile, match=f"x is not a usable plan: .*`{name}`"):
        Plan.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity_tokens": [[1, 2], [3]]}, "`capacity_tokens` must be a rectangular array"),
        ({"capacity_tokens": [[1, 2], [3, 4], [5, "a"]]}, "`capacity_tokens` must hold integers"),
        ({"capacity_tokens": [[10**40, 1]] * 3}, "`capacity_tokens` must"),
        ({"capacity_tokens": [[0, 1]] * 3}, "must be in 1..100, but got 0 at layer 0, KV head 0"),
        ({"capacity_tokens": [[1, 1]] * 4}, "`capacity_tokens` must have the shape"),
        ({"capacity_tokens": []}, "`capacity_tokens` must have the shape"),
        ({"budget_bytes": 1}, "must fit `budget_bytes`"),
        ({"context_tokens": -1}, "`context_tokens` must be at least 1"),
        ({"batch_size": 10**25}, "`batch_size` must be at most"),
        ({"certificate": {}}, "the field `solver` is missing"),
        ({"geometry": []}, "the field `geometry` must be an object"),
        ({"curves": []}, "the field `curves` must be an object"),
        ({"curves": {}}, "the field `loss` is missing"),
    ],
)
def test_well_sealed_nonsense_is_refused(
    saved: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    forge(tmp_path / "x", saved, changes)
    with pytest.raises(BadFile) as caught:
        Plan.load(tmp_path / "x")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": [[[1, 0]] * 2] * 2}, "`curves` must be of (3, 2) caches"),
        ({"loss": [[[1, "0"]] * 2] * 3}, "`loss` must hold real numbers"),
        ({"loss": [[[-1, 0]] * 2] * 3}, "`loss` must be at least 0"),
        ({"loss": [[[1, 0], [1]]] * 3}, "`loss` must be a rectangular array"),
        ({"loss": [[[1]] * 2] * 3}, "`loss` must have one entry per level"),
        ({"kept_fraction": [0.5, 0.9]}, "`kept_fraction` must rise strictly"),
        ({"kept_fraction": None}, "the field `kept_fraction` must be a list"),
        ({"constraints": {}}, "the field `constraints` must be a list"),
        ({"constraints": [{"name": "eval"}]}, "the constraint 'eval' is not known"),
        ({"constraints": [{"name": "LeastTokens", "tokens": 0}]}, "`tokens` must be at least 1"),
    ],
)
def test_curves_that_cannot_be_used_are_refused(
    saved: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    curves = {"kept_fraction": [0.5, 1], "loss": [[[1, 0]] * 2] * 3, "constraints": []}
    forge(tmp_path / "x", saved, {"curves": curves})
    assert Plan.load(tmp_path / "x").curves is not None
    forge(tmp_path / "x", saved, {"curves": {**curves, **changes}})
    with pytest.raises(BadFile) as caught:
        Plan.load(tmp_path / "x")
    assert message in str(caught.value)


def test_a_file_of_version_1_loads_without_curves(plan: Plan, saved: Path, tmp_path: Path) -> None:
    record = json.loads(saved.read_text())
    for name in ("format", "version", "sha256", "curves"):
        record.pop(name)
    for name in ("risk", "constraints"):
        record["certificate"].pop(name)
    (tmp_path / "x").write_text(seal("kvbudget-plan", 1, record))
    assert Plan.load(tmp_path / "x") == replace(plan, curves=None)


def test_a_loaded_plan_is_divided_for_another_context(plan: Plan, saved: Path) -> None:
    assert Plan.load(saved).at(250) == plan.at(250)


@pytest.mark.parametrize(
    "constraints",
    [(EqualInLayer(layers=(0, 2)), LeastTokens(12)), (WholePages(8), Protected(kv_heads=(1,)))],
)
def test_constraints_survive_the_round_trip(
    profile: Profile, tmp_path: Path, constraints: Any
) -> None:
    plan = allocate(profile, budget="80%", context_tokens=100, constraints=constraints)
    plan.save(tmp_path / "x")
    loaded = Plan.load(tmp_path / "x")
    assert loaded == plan
    assert loaded.curves is not None
    assert loaded.curves.constraints == constraints
    assert loaded.at(70) == plan.at(70)


def test_the_file_of_a_large_model_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    loss = np.sort(rng.exponential(size=(32, 8, 19)) * 1e-5, axis=-1)[..., ::-1]
    geometry = Geometry("LlamaForCausalLM", 32, 8, 128, 128, "bfloat16", (None,) * 32)
    profile = Profile(loss, loss[None], DEFAULT_LEVELS, geometry, "m", "h", (), "divergence")
    allocate(profile, budget="25%", context_tokens=32_768).save(tmp_path / "x")
    assert (tmp_path / "x").stat().st_size < 150_000


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "9" * 400, "9" * 5000])
def test_a_number_that_is_not_finite_is_refused(saved: Path, tmp_path: Path, number: str) -> None:
    record = json.loads(saved.read_text())
    text = saved.read_text().replace(
        f'"loss": {record["certificate"]["loss"]!r}', f'"loss": {number}'
    )
    assert text != saved.read_text()
    (tmp_path / "x").write_text(text)
    with pytest.raises(BadFile, match="is not a usable plan"):
        Plan.load(tmp_path / "x")


@pytest.mark.parametrize("load", [Plan.load, Profile.load])
def test_a_pickle_is_data_of_another_program(
    tmp_path: Path, load: Callable[[Path], object]
) -> None:
    import pickle

    (tmp_path / "x").write_bytes(pickle.dumps({"format": "kvbudget-plan"}))
    with pytest.raises(BadFile):
        load(tmp_path / "x")


def test_a_binary_file_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xa0\x11\x00{")
    with pytest.raises(BadFile, match="it is a binary file, not JSON text"):
        Plan.load(path)
