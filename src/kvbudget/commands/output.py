"""How commands print and where they may write."""

import json
import math
import tempfile
from pathlib import Path

import typer


def print_json(record: object) -> None:
    """Print one JSON document on one line; numbers that JSON does not know become null."""
    typer.echo(json.dumps(_plain(record), allow_nan=False, ensure_ascii=False))


def say(text: str) -> None:
    """Tell the user something that is not the result."""
    typer.echo(text, err=True)


def check_can_write(path: Path, option: str = "--out") -> None:
    """Refuse an output file before the work, not after it.

    Args:
        path: The file.
        option: The option that names it.

    Raises:
        ValueError: The file's folder is missing, or the place cannot be written to.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise ValueError(f"`{option}` must name a file, but {path} is a folder.")
    if not folder.is_dir():
        raise ValueError(f"`{option}` must lie in a folder that exists, but {folder} does not.")
    _try_writing(folder, option)


def check_folder(path: Path) -> None:
    """Refuse an output folder that cannot be made or written to.

    Raises:
        ValueError: A file is in the way, or the place cannot be written to.
    """
    nearest = path.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"`--out` must name a folder, but {nearest} is a file.")
    _try_writing(nearest, "--out")


def _try_writing(folder: Path, option: str) -> None:
    try:
        # a nameless file, so that nothing is left behind
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"`{option}` must be writable, but {folder} is not.") from error


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
