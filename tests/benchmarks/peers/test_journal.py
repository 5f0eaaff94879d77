"""A run that is killed goes on where it was."""

import pytest


@pytest.fixture
def row():
    return {"name": "a", "kept": 0.5, "kind": "books", "number": 1}


def test_what_was_added_is_known_to_the_next_journal(peers, tmp_path, row):
    journal = peers("journal")
    first = journal.Journal(tmp_path / "rows.jsonl")
    first.add(row)
    again = journal.Journal(tmp_path / "rows.jsonl")
    assert ("a", 0.5, "books", 1) in again
    assert ("a", 0.5, "books", 2) not in again


def test_half_a_line_of_a_killed_run_is_dropped_and_spoils_nothing(peers, tmp_path, row):
    journal, path = peers("journal"), tmp_path / "rows.jsonl"
    journal.Journal(path).add(row)
    path.write_text(path.read_text() + '{"name": "b", "kept"')
    again = journal.Journal(path)
    again.add({**row, "number": 2})
    assert [each["number"] for each in journal.read_rows(path)] == [1, 2]


def test_there_are_no_rows_before_a_run(peers, tmp_path):
    assert peers("journal").read_rows(tmp_path / "rows.jsonl") == []
