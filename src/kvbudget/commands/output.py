"""How commands print and where they may write."""

import json
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path

import typer

Input = tuple[str, Path | str | None]
"""What a command reads: how it is named on the command line, and the file or folder, if given."""


def print_json(record: object) -> None:
    """Print one JSON document on one line; numbers that JSON does not know become null."""
    typer.echo(json.dumps(_plain(record), allow_nan=False, ensure_ascii=False))


def say(text: str) -> None:
    """Tell the user something that is not the result."""
    typer.echo(text, err=True)


def check_can_write(path: Path, option: str = "--out", inputs: Iterable[Input] = ()) -> None:
    """Refuse an output file before the work, not after it.

    Args:
        path: The file.
        option: The option that names it.
        inputs: What the same command reads, which must stay as it is.

    Raises:
        ValueError: The file's folder is missing, the place cannot be written to, or the file is
            an input or lies in a folder that is one.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise ValueError(f"`{option}` must name a file, but {path} is a folder.")
    if not folder.is_dir():
        raise ValueError(f"`{option}` must lie in a folder that exists, but {folder} does not.")
    for name, source in inputs:
        # an empty text is no path, although pathlib takes it for the folder that one is in
        if source:
            _check_apart(path, option, name, Path(source))
    _try_writing(folder, option)


def check_picture(path: Path, option: str) -> None:
    """Refuse a picture of a kind that cannot be drawn.

    Args:
        path: The file.
        option: The option that names it.

    Raises:
        ValueError: The name ends otherwise.
    """
    from kvbudget.allocator.picture_style import KINDS

    if path.suffix.lower().removeprefix(".") not in KINDS:
        raise ValueError(f"`{option}` must end in .png or .svg, but got {str(path)!r}.")


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


def _check_apart(path: Path, option: str, name: str, source: Path) -> None:
    if source.is_dir():
        around = (*path.absolute().parents, *path.resolve().parents)
        if any(folder.exists() and folder.samefile(source) for folder in around):
            raise ValueError(
                f"`{option}` must not lie in the folder of {name}, but got {path}. "
                "Choose another place."
            )
    elif path.resolve() == source.resolve() or (
        path.exists() and source.exists() and path.samefile(source)
    ):
        raise ValueError(
            f"`{option}` must not be the file of {name}, but got {path}. Choose another name."
        )


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
