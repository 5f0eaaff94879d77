"""Data sets are read as kvpress writes them, and written as it reads them."""

import csv
import json
from dataclasses import replace

import pytest

import kvbudget as kvb
from kvbudget.evaluation import (
    any_found,
    draw_samples,
    read_samples,
    share_found,
    tasks,
    write_samples,
)
from kvbudget.evaluation.dataset import COLUMNS

ROW = {
    "context": "It rained in Rome.",
    "question": "Where?",
    "answer_prefix": "In",
    "answer": ["Rome"],
    "max_new_tokens": 7,
    "task": "niah_single_1",
}


@pytest.fixture
def file_of(tmp_path):
    """A file of rows, by the ending of its name."""

    def write(rows, kind=".jsonl"):
        path = tmp_path / f"data{kind}"
        if kind == ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        elif kind == ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows)
        return path

    return write


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_every_column_is_read(file_of, kind):
    row = {**ROW, "answer": '["Rome"]'} if kind == ".csv" else ROW
    (sample,) = read_samples(file_of([row], kind))
    (question,) = sample.questions
    assert (sample.context, sample.task) == (ROW["context"], "niah_single_1")
    assert (question.text, question.answer_prefix) == ("Where?", "In")
    assert (question.answers, question.max_new_tokens) == (("Rome",), 7)


@pytest.mark.parametrize(
    ("cell", "answers"),
    [("Rome", ("Rome",)), (12, ("12",)), (["a", 3], ("a", "3")), ("['odd", ("['odd",))],
)
def test_an_answer_is_a_text_or_a_list(file_of, cell, answers):
    (sample,) = read_samples(file_of([{**ROW, "answer": cell}]))
    assert sample.questions[0].answers == answers


def test_rows_of_the_same_context_and_task_share_a_reading(file_of):
    other = {**ROW, "context": "It snowed."}
    again = {**ROW, "question": "When?"}
    apart = {**ROW, "task": "another"}
    found = read_samples(file_of([ROW, other, again, apart]))
    assert [(s.context, s.task, len(s.questions)) for s in found] == [
        (ROW["context"], "niah_single_1", 2),
        ("It snowed.", "niah_single_1", 1),
        (ROW["context"], "another", 1),
    ]
    assert [q.text for q in found[0].questions] == ["Where?", "When?"]


def test_columns_that_may_be_missing_have_defaults(file_of):
    (sample,) = read_samples(file_of([{k: ROW[k] for k in ("context", "question", "answer")}]))
    assert (sample.task, sample.questions[0].answer_prefix) == ("dataset", "")
    assert sample.questions[0].max_new_tokens == 50


def test_tasks_are_judged_by_their_names(file_of):
    rows = [{**ROW, "task": name} for name in ("qa_1", "vt", "needle", "multi_turn")]
    forms = [sample.form for sample in read_samples(file_of(rows))]
    assert [form.score for form in forms[:2]] == [any_found, share_found]
    assert forms[2:] == [tasks.SingleNeedle.form, tasks.MultiTurn.form]


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_samples_that_are_written_are_read_again(shipped, tmp_path, kind):
    chosen = [tasks.MultiValueNeedle(), tasks.MultiTurn(), tasks.Copying(), tasks.KeyValues()]
    drawn = draw_samples(shipped[1], tasks=chosen, context_tokens=400, samples=2)
    rows = write_samples(tmp_path / f"data{kind}", drawn)
    found = read_samples(tmp_path / f"data{kind}")
    assert rows == sum(len(sample.questions) for sample in drawn)
    assert [(s.context, s.questions, s.task, s.form) for s in found] == [
        (s.context, s.questions, s.task, s.form) for s in drawn
    ]


def test_texts_that_go_on_are_left_out_and_alone_they_are_refused(shipped, tmp_path):
    prose, needle = (
        draw_samples(shipped[1], tasks=[task], context_tokens=160, samples=2)
        for task in (tasks.Prose(), tasks.SingleNeedle())
    )
    assert write_samples(tmp_path / "data.jsonl", prose + needle) == 2
    with pytest.raises(ValueError, match="`samples` must ask something"):
        write_samples(tmp_path / "other.jsonl", prose)
    assert not (tmp_path / "other.jsonl").exists()


def test_the_columns_written_are_those_of_kvpress(shipped, tmp_path):
    drawn = draw_samples(shipped[1], tasks=[tasks.KeyValues()], context_tokens=160, samples=1)
    write_samples(tmp_path / "data.jsonl", drawn)
    row = json.loads((tmp_path / "data.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert tuple(row) == COLUMNS
    assert isinstance(row["answer"], list)
    assert isinstance(row["max_new_tokens"], int)


def test_a_data_set_scores_as_the_tasks_it_was_written_from(shipped, tmp_path, plan_of):
    chosen = {"tasks": [tasks.MultiTurn(turns=2), tasks.Copying(places=2)], "samples": 1}
    plan = plan_of("40%", 160)
    drawn = draw_samples(shipped[1], context_tokens=160, **chosen)
    write_samples(tmp_path / "data.csv", drawn)
    one = kvb.evaluate(*shipped, plan, context_tokens=160, progress=False, **chosen)
    known = read_samples(tmp_path / "data.csv")
    other = kvb.evaluate(*shipped, plan, dataset=known, progress=False)
    assert [row.scores for row in one.rows] == [row.scores for row in other.rows]
    assert [row.divergence for row in one.rows] == [row.divergence for row in other.rows]


FAULTS = {
    "row 2 must have the column 'answer'": [ROW, {"context": "a", "question": "b"}],
    "row 1 must have the column 'context'": [{"question": "b", "answer": "c"}],
    "row 1 must be an object": ["text"],
    "row 1 must have an answer, but it is empty": [{**ROW, "answer": []}],
    "`max_new_tokens` of row 1 must be a whole number": [{**ROW, "max_new_tokens": "many"}],
    "it holds no rows": [],
    "`max_new_tokens` of row 1 must be a whole number of at least 1, but got 0": [
        {**ROW, "max_new_tokens": 0}
    ],
    "the answer of row 1 must be a text, a number or a list": [{**ROW, "answer": {"a": 1}}],
    "row 2 must have an answer": [ROW, {**ROW, "answer": ["Rome", " "]}],
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_faulty_row_is_named(file_of, sentence):
    path = file_of(FAULTS[sentence], ".json")
    with pytest.raises(kvb.BadFile) as refused:
        read_samples(path)
    assert sentence in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_line_that_is_no_json_is_named(tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps(ROW) + "\n\nnonsense\n")
    with pytest.raises(kvb.BadFile, match="line 3 is no JSON"):
        read_samples(tmp_path / "data.jsonl")


@pytest.mark.parametrize("name", ["data.parquet", "data"])
def test_other_kinds_of_files_are_refused(tmp_path, name):
    with pytest.raises(kvb.BadFile, match=r"must be a \.jsonl, \.json or \.csv file"):
        read_samples(tmp_path / name)


def test_long_contexts_fit_into_csv(file_of):
    (sample,) = read_samples(file_of([{**ROW, "context": "long " * 60_000}], ".csv"))
    assert len(sample.context) == 300_000


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        ("['Rome', 'Paris']", ("Rome", "Paris")),
        ("['Rome' 'Paris']", ("Rome", "Paris")),
        ("['Rome'\n 'Paris']", ("Rome", "Paris")),
        ("['it\\'s' \"so\"]", ("it's", "so")),
        ("[0123 45]", ("0123", "45")),
        ("[citation needed]", ("[citation needed]",)),
        ("[1] Rome", ("[1] Rome",)),
        ("0123", ("0123",)),
    ],
)
def test_lists_in_a_cell_of_csv_are_read_as_pandas_writes_them(file_of, cell, answers):
    (sample,) = read_samples(file_of([{**ROW, "answer": cell}], ".csv"))
    assert sample.questions[0].answers == answers


@pytest.mark.parametrize(
    ("cell", "tokens"), [("7.0", 7), (7.0, 7), (" 12 ", 12), ("", 50), (None, 50)]
)
def test_tokens_are_counted_however_a_table_writes_them(file_of, cell, tokens):
    (sample,) = read_samples(file_of([{**ROW, "max_new_tokens": cell}]))
    assert sample.questions[0].max_new_tokens == tokens


def test_json_is_told_by_what_the_file_holds(tmp_path):
    (tmp_path / "lines.json").write_text(f"{json.dumps(ROW)}\n{json.dumps(ROW)}\n")
    (tmp_path / "list.jsonl").write_text(json.dumps([ROW, ROW], indent=1))
    one, other = (read_samples(tmp_path / name) for name in ("lines.json", "list.jsonl"))
    assert one == other
    assert len(one[0].questions) == 2


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0c", "\r\n"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_odd_ends_of_lines_stay_in_their_contexts(tmp_path, odd, kind):
    (sample,) = read_samples_of(ROW, tmp_path / "one.json")
    odd_one = replace(sample, context=f"It rained{odd}in Rome.")
    write_samples(tmp_path / f"two{kind}", [odd_one])
    assert read_samples(tmp_path / f"two{kind}") == (odd_one,)


def read_samples_of(row, path):
    path.write_text(json.dumps([row]), encoding="utf-8")
    return read_samples(path)


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(file_of, kind):
    path = file_of([ROW], kind)
    plain = read_samples(path)
    path.write_bytes("\ufeff".encode() + path.read_bytes())
    assert read_samples(path) == plain


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b'context,question,answer\n"open,b,c\x00'),
        ("a.csv", b"\xff\xfe\x00"),
        ("a.csv", b"context;question;answer\na;b;c\n"),
        ("a.json", b"[" * 100_000),
        ("a.jsonl", b"[" * 100_000),
        ("a.json", b'{"rows": []}'),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kvb.BadFile, match=name):
        read_samples(tmp_path / name)


def test_reading_csv_leaves_the_limit_of_others_alone(file_of):
    before = csv.field_size_limit()
    read_samples(file_of([ROW], ".csv"))
    assert csv.field_size_limit() == before
