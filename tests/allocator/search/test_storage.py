"""Where trials are kept."""

from pathlib import Path

import optuna
import pytest
from sqlalchemy.exc import SQLAlchemyError

from kvbudget.allocator.search import storage
from kvbudget.allocator.search.storage import open_storage, place_text


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (None, "memory"),
        ("k.journal", "k.journal"),
        (Path("a@b/k.journal"), "a@b/k.journal"),
        ("sqlite:///search.db", "sqlite:///search.db"),
        ("postgresql://me:p@ss@host:5432/db", "postgresql://host:5432/db"),
    ],
)
def test_messages_name_a_place_without_its_password(place: str | Path | None, text: str) -> None:
    assert place_text(place) == text


def test_places_decide_the_kind_of_storage(tmp_path: Path) -> None:
    assert isinstance(open_storage(None), optuna.storages.InMemoryStorage)
    for place in (str(tmp_path / "a.log"), tmp_path / "b.log"):
        assert isinstance(open_storage(place), optuna.storages.journal.JournalStorage)
    database = open_storage(f"sqlite:///{tmp_path / 'c.db'}")
    assert isinstance(database, optuna.storages.RDBStorage)


def test_a_journal_can_be_read_by_optuna_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "a.log")
    open_storage(path).create_new_study([optuna.study.StudyDirection.MINIMIZE], "mine")
    backend = optuna.storages.journal.JournalFileBackend(path)
    assert optuna.get_all_study_names(optuna.storages.JournalStorage(backend)) == ["mine"]


def test_a_relative_path_is_that_of_the_folder_it_was_opened_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = open_storage("a.log")
    monkeypatch.chdir("/")
    journal.create_new_study([optuna.study.StudyDirection.MINIMIZE], "mine")
    assert b"mine" in (tmp_path / "a.log").read_bytes()


def test_a_database_that_is_just_being_made_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, tries = optuna.storages.RDBStorage, []

    def busy(url: str) -> optuna.storages.RDBStorage:
        tries.append(url)
        if len(tries) < 3:
            raise SQLAlchemyError("table exists")
        return make(url)

    monkeypatch.setattr(storage, "DATABASE_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(optuna.storages, "RDBStorage", busy)
    assert isinstance(open_storage(f"sqlite:///{tmp_path / 'c.db'}"), make)
    assert len(tries) == 3


def test_a_database_that_cannot_be_opened_raises_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "DATABASE_WAIT_SECONDS", 0.0)
    with pytest.raises(SQLAlchemyError):
        open_storage(f"sqlite:///{tmp_path / 'none' / 'c.db'}")
