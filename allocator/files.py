"""Reading and writing whole files, with errors that name the file."""

import os
import uuid
from pathlib import Path

from .errors import BadFile

FilePath = str | os.PathLike[str]


def read_whole(path: FilePath, kind: str) -> bytes:
    """Return the content of a file.

    Args:
        path: Where the file lies.
        kind: What the file should hold, for messages: ``"plan"``.

    Raises:
        BadFile: If there is no file, it is a folder, or it cannot be read.
    """
    place = os.fspath(path)
    try:
        return Path(place).read_bytes()
    except FileNotFoundError:
        raise BadFile(f"No file at {place}: check the path of the {kind}.") from None
    except IsADirectoryError:
        raise BadFile(f"{place} is a folder, not a {kind}: name the file in it.") from None
    except OSError as error:
        raise BadFile(f"{place} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise BadFile(f"{place!r} cannot be the path of a {kind}: {error}.") from error


def write_whole(path: FilePath, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        FileNotFoundError: If the folder does not exist.
        IsADirectoryError: If the path is a folder.
    """
    # a link keeps pointing where it did: its target is replaced, not the link
    place = Path(os.path.realpath(path))
    if not place.parent.is_dir():
        raise FileNotFoundError(
            f"`path` must lie in a folder that exists, but got {os.fspath(path)!r}."
            f" Make {place.parent} first."
        )
    if place.is_dir():
        raise IsADirectoryError(f"`path` must name a file, but {os.fspath(path)!r} is a folder.")
    temporary = place.parent / f".kvbudget-{uuid.uuid4().hex}.tmp"
    try:
        write_through(temporary, content)
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


def write_through(path: Path, content: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def bad_file(path: FilePath, kind: str, error: Exception) -> BadFile:
    """The error for a file whose content cannot be used."""
    return BadFile(f"{os.fspath(path)} is not a usable {kind}: {str(error).rstrip('.')}.")
