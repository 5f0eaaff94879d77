"""The built-in text is prose, and enough of it."""

import re
import sys

import pytest

from kvbudget.prose import built_in_sentences, file_sentences


def test_the_built_in_text_is_enough_prose_without_repeats():
    sentences = built_in_sentences()
    assert len(sentences) == len(set(sentences)) > 400
    assert sum(map(len, sentences)) > 50_000
    assert [s for s in sentences if re.search(r"\d{3}|::|  ", s) or not s[0].isupper()] == []


def test_a_python_without_its_reference_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match="--text"):
        built_in_sentences()


def test_sentences_of_a_file_are_read_in_order(tmp_path):
    path = tmp_path / "text"
    wanted = [f"This is sentence number {n} of a text of some length." for n in range(30)]
    path.write_text(" ".join(wanted))
    assert file_sentences(path) == wanted
