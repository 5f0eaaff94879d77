"""Losses of the prompts measured so far, in a file that outlives the process.

Processes that share the work write a file each, `profile.rank0.safetensors` beside
`profile.safetensors`, and read all of them, so their number may change from one run to the next.
"""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from kvbudget.allocator.array_file import pack_arrays, unpack_arrays
from kvbudget.allocator.files import FilePath, bad_file, read_whole, write_whole
from kvbudget.allocator.json_fields import read_field

from .distributed import Ranks

FORMAT = "kvbudget-checkpoint"
VERSION = 1
ARRAYS = ("prompt", "loss")
MOST_TIME_WRITING = 0.05
HASH = re.compile("[0-9a-f]{64}")

Floats = NDArray[np.float64]
Losses = dict[int, Floats]
Told = list[tuple[int, list[object]]]


class Checkpoint:
    """Remembers the losses of prompts, and what they are losses of.

    Used as a context, it writes what is not yet written at the end, whatever ended it. Before that
    it writes as often as a twentieth of the time allows, first after one prompt.

    Args:
        path: The file; None for none. It stays when all is measured.
        identity: What is measured, as named texts. Losses of anything else are refused.
        ranks: This process among those that share the work.
    """

    def __init__(
        self, path: FilePath | None, identity: Mapping[str, str], ranks: Ranks | None = None
    ) -> None:
        self.losses: Losses = {}
        self._path = None if path is None else Path(os.path.realpath(path))
        self._identity, self._ranks = dict(identity), ranks or Ranks()
        self._is_written = True
        self._next_write = 0.0

    def read(self) -> Losses:
        """Losses [layers, kv_heads, levels] of the prompts found in files, by prompt number.

        Raises:
            FileNotFoundError: The folder does not exist.
            BadFile: A file is damaged, or holds losses of something else; says of what.
        """
        if self._path is None:
            return {}
        if not self._path.parent.is_dir():
            raise FileNotFoundError(
                f"`checkpoint` must lie in a folder that exists, but got {str(self._path)!r}. "
                f"Make {self._path.parent} first."
            )
        found: Losses = {}
        for place in self._places():
            found |= self._read_file(place)
        return found

    def add(self, prompt: int, loss: Floats) -> None:
        """Note the losses of one more prompt, and write all of them if it is time."""
        self.losses[prompt] = loss
        self._is_written = False
        if time.monotonic() >= self._next_write:
            self._write()

    def __enter__(self) -> "Checkpoint":
        """Begin to measure."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the rest."""
        if not self._is_written:
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        start = time.monotonic()
        prompts = sorted(self.losses)
        arrays = {
            "prompt": np.array(prompts, dtype=np.float64),
            "loss": np.stack([self.losses[prompt] for prompt in prompts]),
        }
        content = {"identity": self._identity}
        write_whole(self._own_path(self._path), pack_arrays(FORMAT, VERSION, content, arrays))
        self._is_written = True
        end = time.monotonic()
        self._next_write = end + (end - start) / MOST_TIME_WRITING

    def _own_path(self, path: Path) -> Path:
        if self._ranks.size == 1:
            return path
        return path.with_name(f"{path.stem}.rank{self._ranks.rank}{path.suffix}")

    def _places(self) -> list[Path]:
        """The files there are: that of one process, and those of several."""
        assert self._path is not None, "asked only where there is a path"
        stem, suffix = re.escape(self._path.stem), re.escape(self._path.suffix)
        of_a_rank = re.compile(rf"{stem}\.rank\d+{suffix}")
        places = [self._path] if self._path.exists() else []
        others = self._path.parent.iterdir()
        return places + sorted(place for place in others if of_a_rank.fullmatch(place.name))

    def _read_file(self, place: Path) -> Losses:
        raw = read_whole(place, "checkpoint")
        try:
            record, arrays = unpack_arrays(raw, FORMAT, VERSION, ARRAYS)
            self._check(read_field(record, "identity", dict))
        except (TypeError, ValueError) as error:
            raise bad_file(place, "checkpoint", error) from error
        return {
            int(prompt): loss for prompt, loss in zip(arrays["prompt"], arrays["loss"], strict=True)
        }

    def _check(self, found: Mapping[str, object]) -> None:
        for name, wanted in self._identity.items():
            if found.get(name) != wanted:
                both = f" ({found.get(name)!s:.80}, here {wanted:.80})"
                difference = "" if HASH.fullmatch(wanted) else both
                raise ValueError(
                    f"it was made for another {name}{difference}; name another file, or delete it"
                )


def told(losses: Losses) -> Told:
    """Losses as JSON types, which processes can send each other."""
    return [(prompt, loss.tolist()) for prompt, loss in losses.items()]


def heard(message: Told) -> Losses:
    """Losses from what another process has `told`."""
    return {prompt: np.array(loss, dtype=np.float64) for prompt, loss in message}
