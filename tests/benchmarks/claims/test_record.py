"""Outcomes are written line by line and read back."""

import json


def test_a_record_comes_back_from_its_line(claims, record, tmp_path):
    module, file = claims("record"), tmp_path / "rows.jsonl"
    one, other = record("a", "text", [0.25, 0.5], [1, 2]), record("b", "needles", [0.125])
    module.append(file, one, {"commit": "x"})
    module.append(file, other, {"commit": "x"})
    assert module.read_records(file) == {("a", "text"): one, ("b", "needles"): other}


def test_half_a_line_of_a_killed_run_is_passed_over(claims, record, tmp_path):
    module, file = claims("record"), tmp_path / "rows.jsonl"
    module.append(file, record("a", "text", [0.25]), {})
    whole = file.read_text()
    file.write_text(whole + whole[: len(whole) // 2])
    assert list(module.read_records(file)) == [("a", "text")]


def test_what_comes_after_half_a_line_is_kept(claims, record, tmp_path):
    module, file = claims("record"), tmp_path / "rows.jsonl"
    module.append(file, record("a", "text", [0.25]), {})
    file.write_text(file.read_text()[:20])
    module.append(file, record("b", "text", [0.25]), {})
    assert list(module.read_records(file)) == [("b", "text")]


def test_no_file_is_no_records(claims, tmp_path):
    assert claims("record").read_records(tmp_path / "none.jsonl") == {}


def test_every_line_says_where_it_was_made(claims, record, tmp_path):
    module, file = claims("record"), tmp_path / "rows.jsonl"
    module.append(file, record("a", "text", [0.25]), module.about())
    line = json.loads(file.read_text())
    assert {"machine", "commit", "kvbudget", "torch", "transformers", "seed"} <= set(line)
