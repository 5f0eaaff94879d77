"""Where trials are kept: in memory, in a journal file, or in a database."""

import os
import re
import time
from typing import TYPE_CHECKING, Any, cast

from kvbudget.allocator.files import FilePath, bad_file

from .journal_lock import JournalLock

if TYPE_CHECKING:
    import optuna

DATABASE_ATTEMPTS = 4
DATABASE_WAIT_SECONDS = 0.5
JOURNAL_START = b'{"op_code":'
"""First bytes of every line of a journal."""


def place_text(place: FilePath | None) -> str:
    """Where trials are kept, for messages; the user and the password of a database are left out."""
    return "memory" if place is None else re.sub(r"://.*@", "://", os.fspath(place))


def open_storage(place: FilePath | None) -> "optuna.storages.BaseStorage":
    """Open or create a storage of Optuna.

    Args:
        place: ``None`` for memory; a database's URL, such as ``"sqlite:///search.db"``; or the
            path of a journal file, which several processes may share.

    Raises:
        FileNotFoundError: If the folder of the journal does not exist.
        BadFile: If the file is not a journal.
    """
    import optuna

    if place is None:
        return optuna.storages.InMemoryStorage()
    if "://" in os.fspath(place):
        return open_database(os.fspath(place))
    return open_journal(os.path.realpath(place))


def open_database(url: str) -> "optuna.storages.BaseStorage":
    """Open or create a database."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    for _ in range(DATABASE_ATTEMPTS - 1):
        try:
            return optuna.storages.RDBStorage(url)
        except SQLAlchemyError:
            # processes that make the tables at the same time disturb each other
            time.sleep(DATABASE_WAIT_SECONDS)
    return optuna.storages.RDBStorage(url)


def open_journal(path: str) -> "optuna.storages.BaseStorage":
    """Open or create a journal file.

    Raises:
        FileNotFoundError: If its folder does not exist.
        BadFile: If the file is not a journal.
    """
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    if not os.path.isdir(os.path.dirname(path)):
        raise FileNotFoundError(
            f"`storage` must lie in a folder that exists, but got {path!r}."
            f" Make {os.path.dirname(path)} first."
        )
    check_journal(path)
    try:
        return JournalStorage(JournalFileBackend(path, lock_obj=cast(Any, JournalLock(path))))
    except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError) as error:
        raise bad_file(path, "journal of a search", error) from error


def check_journal(path: str) -> None:
    """Refuse a file that holds something else, before anything is appended to it.

    Raises:
        BadFile: If its start is not that of a journal.
    """
    if os.path.isfile(path):
        with open(path, "rb") as file:
            start = file.read(len(JOURNAL_START))
        if not JOURNAL_START.startswith(start):
            fault = ValueError("it holds something else")
            raise bad_file(path, "journal of a search", fault)
