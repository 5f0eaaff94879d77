"""Rows of a run that may be killed: each is written when it is known, and asked for only once."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSIONS = "kvpress_versions.json"
Key = tuple[str, float, str, int]


def key_of(row: dict[str, Any]) -> Key:
    """What a row is about: contender, kept share, kind and number of the trial."""
    return row["name"], row["kept"], row["kind"], row["number"]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows; what a killed run has left half written is passed over."""
    if not path.is_file():
        return []
    whole = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in whole]


@dataclass(slots=True)
class Journal:
    """Rows on disk, and which are there already.

    Args:
        path: The file; a new one is made if there is none.
    """

    path: Path
    known: set[Key] = field(init=False)

    def __post_init__(self) -> None:
        rows = read_rows(self.path)
        self.known = {key_of(row) for row in rows}
        # a half written last line would spoil the next one
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def __contains__(self, key: Key) -> bool:
        return key in self.known

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.known.add(key_of(row))
