import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from kvbudget.allocator import BadFile, Geometry, Profile
from kvbudget.allocator.array_file import METADATA_KEY, parse_header, payload
from kvbudget.allocator.envelope import seal
from kvbudget.allocator.profile import ARRAYS

Make = Callable[..., Profile]


@pytest.fixture(scope="session")
def saved(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved profile."""
    path = tmp_path_factory.mktemp("profiles") / "good.safetensors"
    profile.save(path)
    return path


@pytest.fixture(scope="session")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place to write damaged files to."""
    return tmp_path_factory.mktemp("damaged") / "profile.safetensors"


def load_damaged(spare: Path, content: bytes, profile: Profile) -> None:
    """Load must give an equal value or say which file is bad, and nothing else."""
    spare.write_bytes(content)
    try:
        loaded: Profile | str = Profile.load(spare)
    except BadFile as error:
        loaded = str(error)
    if isinstance(loaded, str):
        assert str(spare) in loaded
    else:
        assert loaded == profile


def forge(path: Path, profile: Profile, **changes: Any) -> None:
    """Write a well sealed file whose arrays or fields are not those of a profile."""
    arrays = {name: changes.pop(name, getattr(profile, name)) for name in ARRAYS}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    content = json.loads(parse_header_of(profile, path))
    content = {k: v for k, v in {**content, **changes}.items() if v is not ...}
    for name in ("format", "version", "sha256"):
        content.pop(name)
    header = seal("kvbudget-profile", 1, content, payload(arrays))
    save_file(arrays, path, metadata={METADATA_KEY: header})


def parse_header_of(profile: Profile, path: Path) -> str:
    profile.save(path)
    return parse_header(path.read_bytes())


def test_a_saved_profile_loads_equal(profile: Profile, saved: Path) -> None:
    assert Profile.load(saved) == profile
    assert Profile.load(str(saved)) == profile


def test_settings_keep_their_types(make_profile: Make, tmp_path: Path) -> None:
    pairs = (("a", True), ("b", 1), ("c", 1.0), ("d", "1"), ("e", 0.1), ("f", "\ud800 ü"))
    make_profile(heuristic_settings=pairs).save(tmp_path / "p")
    loaded = Profile.load(tmp_path / "p").heuristic_settings
    assert [(name, type(value), value) for name, value in loaded] == [
        (name, type(value), value) for name, value in pairs
    ]


@given(seed=st.integers(0, 2**32), model=st.text(), made_by=st.text())
@settings(deadline=None, max_examples=30)
def test_any_profile_survives_the_round_trip(
    make_profile: Make, spare: Path, seed: int, model: str, made_by: str
) -> None:
    profile = make_profile(seed, model=model, made_by=made_by)
    profile.save(spare)
    assert Profile.load(spare) == profile


def test_the_description_is_one_json_string_in_the_metadata(saved: Path) -> None:
    raw = saved.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert list(header["__metadata__"]) == ["kvbudget"]
    record = json.loads(header["__metadata__"]["kvbudget"])
    assert (record["format"], record["version"]) == ("kvbudget-profile", 1)


def test_the_same_profile_gives_the_same_bytes(
    profile: Profile, tmp_path: Path, saved: Path
) -> None:
    profile.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_every_truncation_is_a_bad_file(profile: Profile, saved: Path, spare: Path) -> None:
    content = saved.read_bytes()
    for length in range(len(content)):
        spare.write_bytes(content[:length])
        with pytest.raises(BadFile, match=r"profile.safetensors is not a usable profile"):
            Profile.load(spare)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_flipped_bytes_never_pass_as_another_profile(
    profile: Profile, saved: Path, spare: Path, data: st.DataObject
) -> None:
    content = bytearray(saved.read_bytes())
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=3)):
        content[place] ^= data.draw(st.integers(1, 255))
    load_damaged(spare, bytes(content), profile)


def test_every_flip_in_the_header_is_noticed(profile: Profile, saved: Path, spare: Path) -> None:
    content = saved.read_bytes()
    for place in range(8 + int.from_bytes(content[:8], "little")):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        load_damaged(spare, bytes(flipped), profile)


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=300))
def test_random_bytes_are_a_bad_file(spare: Path, content: bytes) -> None:
    spare.write_bytes(content)
    with pytest.raises(BadFile, match="is not a usable profile"):
        Profile.load(spare)


@settings(deadline=None, max_examples=100)
@given(header=st.binary(max_size=200), tail=st.binary(max_size=50))
def test_a_random_header_is_a_bad_file(spare: Path, header: bytes, tail: bytes) -> None:
    spare.write_bytes(len(header).to_bytes(8, "little") + header + tail)
    with pytest.raises(BadFile, match="is not a usable profile"):
        Profile.load(spare)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"^No file at .*none: check the path of the profile"):
        Profile.load(tmp_path / "none")
    with pytest.raises(BadFile, match="is a folder, not a profile"):
        Profile.load(tmp_path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_a_safetensors_file_of_another_program_is_refused(
    tmp_path: Path, profile: Profile, metadata: dict[str, str] | None
) -> None:
    arrays = {name: getattr(profile, name) for name in ARRAYS}
    save_file(arrays, tmp_path / "x", metadata=metadata)
    with pytest.raises(BadFile, match="it is a safetensors file of another program"):
        Profile.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "it does not hold JSON"),
        ("[1]", "its JSON is not an object"),
        ('"text"', "its JSON is not an object"),
        ('{"format": "kvbudget-plan", "version": 1}', "its format is 'kvbudget-plan'"),
        (
            '{"format": "kvbudget-profile", "version": 2}',
            "it was written by a newer version of kvbudget",
        ),
    ],
)
def test_a_foreign_description_is_refused(
    tmp_path: Path, profile: Profile, header: str, message: str
) -> None:
    arrays = {name: getattr(profile, name) for name in ARRAYS}
    save_file(arrays, tmp_path / "x", metadata={METADATA_KEY: header})
    with pytest.raises(BadFile, match="x is not a usable profile: ") as caught:
        Profile.load(tmp_path / "x")
    assert message in str(caught.value)


FIELDS = ("geometry", "model", "heuristic", "heuristic_settings", "measure", "made_by")


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [..., None, 3, [3], True])
def test_a_field_that_is_missing_or_of_another_type_is_named(
    tmp_path: Path, profile: Profile, name: str, value: Any
) -> None:
    forge(tmp_path / "x", profile, **{name: value})
    with pytest.raises(BadFile, match=f"not a usable profile: .*`{name}`"):
        Profile.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": None}, "the array `loss` is missing"),
        ({"loss": np.ones((3, 2, 4), dtype=np.float32)}, "`loss` must be F64, but is F32"),
        ({"kept_fraction": np.ones(4, dtype=np.int64)}, "`kept_fraction` must be F64, but is I64"),
        ({"loss": np.ones((3, 2))}, "`loss` must have the shape"),
        ({"loss": np.ones((3, 2, 0))}, "`loss` must have the shape"),
        ({"loss": np.ones((3, 2, 5))}, "`loss` must have the shape"),
        ({"loss": np.full((3, 2, 4), np.nan)}, "`loss` must be finite, but got nan at layer 0"),
        ({"loss": np.full((3, 2, 4), -1.0)}, "`loss` must be at least 0"),
        ({"sample_loss": np.ones((3, 2, 4))}, "`sample_loss` must have the shape"),
        ({"kept_fraction": np.array([0.1, 0.2, 0.3, 0.4])}, "must rise strictly"),
        ({"geometry": {"layers": 3}}, "the field `architecture` is missing"),
    ],
)
def test_well_sealed_nonsense_is_refused(
    tmp_path: Path, profile: Profile, changes: dict[str, Any], message: str
) -> None:
    forge(tmp_path / "x", profile, **changes)
    with pytest.raises(BadFile) as caught:
        Profile.load(tmp_path / "x")
    assert message in str(caught.value)


@pytest.mark.parametrize("layers", [0, 2, 10**30])
def test_a_geometry_of_another_size_is_refused(
    tmp_path: Path, profile: Profile, geometry: Geometry, layers: int
) -> None:
    forge(tmp_path / "x", profile, geometry={**geometry.to_json(), "layers": layers})
    with pytest.raises(BadFile):
        Profile.load(tmp_path / "x")
