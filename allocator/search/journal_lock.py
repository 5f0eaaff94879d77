"""A lock on a journal file that ends with the process that holds it.

The locks that come with Optuna are files of their own. A killed process leaves them behind, and
the next one waits until they are old. The kernel drops this one at once. It also drops the part
of a line that a killed process may have left, without which nothing could be appended.
"""

import os
from typing import IO


class JournalLock:
    """Holds a journal for one process at a time.

    Args:
        path: The journal file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._held: list[IO[bytes]] = []

    def acquire(self) -> bool:
        """Wait for the journal, hold it, and make it end with a whole line."""
        import fcntl

        file = open(self._path, "r+b")  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_EX)
        self._held.append(file)
        drop_broken_line(file)
        return True

    def release(self) -> None:
        """Let others have the journal."""
        self._held.pop().close()


def drop_broken_line(file: IO[bytes]) -> None:
    """Cut off what follows the last line end.

    Args:
        file: A file open for reading and writing.
    """
    end = file.seek(0, os.SEEK_END)
    keep = end
    while keep:
        file.seek(keep - 1)
        if file.read(1) == b"\n":
            break
        keep -= 1
    if keep < end:
        file.truncate(keep)
