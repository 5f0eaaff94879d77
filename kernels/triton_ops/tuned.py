"""The file in which tuned launch settings are kept, in the user's cache folder.

One JSON object: the name of a GPU, then that of a program, then the numbers of a launch. A file
that cannot be read or says something else counts as absent; it is only ever replaced whole.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def tuned_path() -> Path:
    """Where the file lies: below XDG_CACHE_HOME, else below ~/.cache.

    Raises:
        OSError: If there is neither.
    """
    try:
        folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise OSError(
            "There must be a cache folder for tuned settings, but this user has no home: set "
            "XDG_CACHE_HOME to a folder."
        ) from error
    return Path(folder) / "kvbudget" / "launches.json"


def read_tuned(gpu: str) -> dict[str, list[int]]:
    """Numbers of the launch found for each program on a GPU; nothing if there is no sound file."""
    try:
        found = json.loads(tuned_path().read_text(encoding="utf-8"))[gpu]
        return {str(name): [int(x) for x in numbers] for name, numbers in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def write_tuned(gpu: str, found: Mapping[str, list[int]]) -> Path:
    """Keep what was found for a GPU beside what is known of others; returns the file.

    Raises:
        OSError: If the folder cannot be written.
    """
    path = tuned_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    text = json.dumps({**known, gpu: {**read_tuned(gpu), **found}}, indent=1)
    # renamed when whole, so that no reader ever sees half of it
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, suffix=".json", delete=False, encoding="utf-8"
    ) as file:
        try:
            file.write(text)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return path
