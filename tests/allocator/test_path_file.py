import json
from pathlib import Path as FilePath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import BadFile, Plan, Profile
from kvbudget.allocator.array_file import pack_arrays
from kvbudget.allocator.constraints import LeastTokens
from kvbudget.allocator.path import Path
from kvbudget.allocator.path_file import ARRAYS, FORMAT, VERSION, pack_path, unpack_problem
from kvbudget.allocator.solve_path import solve_path


@pytest.fixture(scope="module")
def path(profile: Profile) -> Path:
    """A path with a constraint."""
    return solve_path(profile, context_tokens=100, constraints=(LeastTokens(12),))


@pytest.fixture(scope="module")
def content(path: Path) -> bytes:
    """Its file."""
    return packed(path)


def packed(path: Path) -> bytes:
    """The file of a path made from a profile."""
    assert path.curves is not None
    assert path.problem.origin is not None
    return pack_path(path.curves, path.problem.origin)


def forged(content: bytes, changes: dict[str, Any]) -> bytes:
    """A well sealed file with other fields; ``...`` removes one."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    record = {**json.loads(header["__metadata__"]["kvbudget"]), **changes}
    fields = {
        name: value
        for name, value in record.items()
        if name not in ("format", "version", "sha256") and value is not ...
    }
    problem = unpack_problem(content)
    assert problem.origin is not None
    loss = problem.origin.loss.reshape(3, 2, -1)
    arrays = {"loss": loss, "kept_fraction": problem.origin.kept_fraction}
    return pack_arrays(FORMAT, VERSION, fields, arrays)


def test_what_is_packed_comes_back(path: Path, content: bytes) -> None:
    assert unpack_problem(content).constraints == (LeastTokens(12),)
    assert Path.of(unpack_problem(content)) == path


def test_a_forged_file_that_changes_nothing_is_the_same_file(content: bytes) -> None:
    assert forged(content, {}) == content


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damage_is_found(path: Path, content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content)
    place = data.draw(st.integers(0, len(content) - 1))
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        loaded = Path.of(unpack_problem(bytes(damaged)))
    except (TypeError, ValueError):
        return
    assert loaded == path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_tokens": 0}, "`context_tokens` must be at least 1"),
        ({"batch_size": ...}, "the field `batch_size` is missing"),
        ({"constraints": 3}, "the field `constraints` must be a list"),
        ({"constraints": [{"name": "Custom"}]}, "Custom"),
        ({"constraints": [{"name": "MostCapacities", "count": 1}]}, "must not couple caches"),
        (
            {"constraints": [{"name": "LeastTokens", "tokens": 5, "layers": [9]}]},
            r"`layers` must be in 0\.\.2, but got 9",
        ),
        (
            {
                "constraints": [
                    {"name": "LeastTokens", "tokens": 60},
                    {"name": "MostTokens", "tokens": 9},
                ]
            },
            "left without a level",
        ),
        ({"geometry": {}}, "is missing"),
    ],
)
def test_well_sealed_nonsense_is_refused(
    content: bytes, tmp_path: FilePath, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "x").write_bytes(forged(content, changes))
    with pytest.raises(BadFile, match=f"x is not a usable path: .*{message}"):
        Path.load(tmp_path / "x")


def test_files_are_told_apart(path: Path, profile: Profile, plan: Plan, tmp_path: FilePath) -> None:
    for value in (profile, plan):
        value.save(tmp_path / "other")
        with pytest.raises(BadFile, match="is not a usable path"):
            Path.load(tmp_path / "other")
    path.save(tmp_path / "path")
    with pytest.raises(BadFile, match="is not a usable profile"):
        Profile.load(tmp_path / "path")
    with pytest.raises(BadFile, match=r"^No file at .*none: check the path of the path"):
        Path.load(tmp_path / "none")


def test_a_newer_file_is_refused_as_newer(content: bytes, path: Path, tmp_path: FilePath) -> None:
    assert path.curves is not None
    arrays = {name: getattr(path.curves, name) for name in ARRAYS}
    (tmp_path / "x").write_bytes(pack_arrays(FORMAT, VERSION + 1, {}, arrays))
    with pytest.raises(BadFile, match="was written by a newer version"):
        Path.load(tmp_path / "x")
