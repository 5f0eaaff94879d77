import os
from pathlib import Path

import pytest

from kvbudget.allocator import BadFile
from kvbudget.allocator.files import read_whole, write_whole


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"one")
    write_whole(str(tmp_path / "a"), b"two")
    assert read_whole(str(tmp_path / "a"), "plan") == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    write_whole(tmp_path / "a", b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_stop_from_the_keyboard_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "ours", b"")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_keeps_pointing_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "file")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "no" / "plan.json", b"")
    assert str(caught.value).startswith("`path` must lie in a folder that exists, but got ")
    assert str(caught.value).endswith(f"Make {tmp_path / 'no'} first.")


def test_a_folder_is_no_place_for_content(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="`path` must name a file"):
        write_whole(tmp_path, b"")


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=f"^No file at {tmp_path}/x: check the path of the plan.$"):
        read_whole(tmp_path / "x", "plan")
    with pytest.raises(BadFile, match="is a folder, not a plan"):
        read_whole(tmp_path, "plan")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadFile, match="cannot be read: Not a directory"):
        read_whole(tmp_path / "file" / "plan", "plan")
    with pytest.raises(BadFile, match="cannot be the path of a plan"):
        read_whole("a\0b", "plan")


def test_a_file_the_system_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BadFile, match="a cannot be read: Permission denied"):
        read_whole(tmp_path / "a", "plan")
