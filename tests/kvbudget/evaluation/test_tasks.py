"""Every task fills its room, and asks for what stands in the context."""

import json
import random
import re
from collections import Counter
from itertools import pairwise

import pytest

from kvbudget.evaluation import NoRoom, Room, Wording, draw, tasks
from kvbudget.evaluation.tasks import BUILT_IN, CommonWords, Copying, VariableTracking
from kvbudget.evaluation.tasks.copying import draw_list
from kvbudget.evaluation.tasks.lines import draw_labels

SEEDS = range(4)
SIZES = (400, 1024, 2048)
BY_NAME = {task.name: task for task in BUILT_IN}


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.name)
@pytest.mark.parametrize("tokens", SIZES)
def test_a_sample_never_takes_more_than_its_room_and_hardly_less(task, tokens, room_of, wording):
    room = room_of(tokens)
    for seed in SEEDS:
        length = wording.length(draw(task, room, seed))
        assert tokens - 24 <= length <= tokens


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.name)
def test_a_sample_depends_on_its_seed_alone(task, room_of):
    room = room_of(400)
    assert draw(task, room, 3) == draw(task, room, 3)
    contexts = {draw(task, room, seed).context for seed in SEEDS}
    assert len(contexts) == len(SEEDS)


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.name)
def test_a_sample_bears_the_name_the_form_and_the_seed_of_its_task(task, room_of):
    sample = draw(task, room_of(400), 5)
    assert (sample.task, sample.form, sample.seed) == (task.name, task.form, 5)


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.name)
def test_a_question_leaves_room_for_its_answer(task, room_of, wording):
    sample = draw(task, room_of(400), 0)
    for question in sample.questions:
        if not task.form.is_text:
            assert question.max_new_tokens >= len(wording.encode(question.right))


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.name)
def test_a_task_without_room_says_how_much_it_needs(task, room_of):
    with pytest.raises(NoRoom, match=rf"at least \d+ for the task {task.name}, but got 1\."):
        draw(task, room_of(1), 0)


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.name)
def test_what_a_task_says_it_needs_is_enough(task, room_of):
    with pytest.raises(NoRoom) as refused:
        draw(task, room_of(1), 0)
    needed = int(re.search(r"at least (\d+)", str(refused.value)).group(1))
    # some sizes are drawn, so that the least room depends on it a little
    assert draw(task, room_of(needed + 60), 0).questions


def samples(name, room_of):
    return [draw(BY_NAME[name], room_of(700), seed) for seed in SEEDS]


@pytest.mark.parametrize("name", ["needle", "needle_multi_key", "needle_multi_query", "multi_turn"])
def test_each_needle_asked_for_is_hidden_once(name, room_of):
    for sample in samples(name, room_of):
        for question in sample.questions:
            asked = re.fullmatch(r"\nQuestion: What is the (.*)\?", question.text).group(1)
            assert sample.context.count(f"The {asked} is {question.right}.") == 1
            assert sample.context.count(question.right) == 1


def test_needle_tasks_hide_and_ask_as_many_as_they_say(room_of):
    names = ("needle", "needle_multi_key", "needle_multi_query", "multi_turn")
    drawn = [draw(BY_NAME[name], room_of(700), 0) for name in names]
    sentence = re.compile(r"The [a-z ]+ of [a-z-]+ is \d{4,6}\.")
    assert [len(sentence.findall(sample.context)) for sample in drawn] == [1, 8, 4, 6]
    assert [len(sample.questions) for sample in drawn] == [1, 1, 4, 6]


def test_all_values_of_a_key_are_asked_for_at_once(room_of):
    for sample in samples("needle_multi_value", room_of):
        (question,) = sample.questions
        kind, who = re.search(r"all the (.*)s of (.*)\?", question.text).groups()
        found = re.findall(rf"The {kind} of {re.escape(who)} is (\d+)\.", sample.context)
        assert len(found) == 4
        assert set(found) == set(question.answers)


def test_looked_up_values_are_those_of_the_table(room_of):
    for sample in samples("key_values", room_of):
        table = json.loads(sample.context)
        asked = [re.fullmatch(r'get\("(.*)"\) -> "', q.answer_prefix)[1] for q in sample.questions]
        assert [table[key] for key in asked] == [q.right for q in sample.questions]
        assert len(set(asked)) == 4
        assert all(key in q.text for key, q in zip(asked, sample.questions, strict=True))


def test_lines_asked_for_hold_the_number(room_of):
    for sample in samples("lines", room_of):
        for question in sample.questions:
            assert f"{question.answer_prefix}{question.right}" in sample.context.splitlines()
            assert sample.context.count(question.answer_prefix) == 1


@pytest.mark.parametrize("name", ["variables", "variable_tracking"])
def test_printed_variables_have_the_value_that_running_the_lines_gives(name, room_of):
    for sample in samples(name, room_of):
        values: dict[str, str] = {}
        for line in sample.context.splitlines():
            variable, _, value = line.partition(" = ")
            assert variable not in values
            values[variable] = values.get(value, value)
        for question in sample.questions:
            printed = re.fullmatch(r"print\((.*)\)  # ", question.answer_prefix).group(1)
            assert values[printed] == question.right


def test_a_value_is_handed_on_as_often_as_was_asked_for(room_of):
    for hops in (0, 2, 5):
        sample = draw(VariableTracking(hops=hops), room_of(400), 1)
        lines = dict(line.split(" = ") for line in sample.context.splitlines())
        (question,) = sample.questions
        variable, steps = question.answer_prefix.removeprefix("print(").split(")")[0], 0
        while not lines[variable].isdigit():
            variable, steps = lines[variable], steps + 1
        assert steps == hops
        assert lines[variable] == question.right
        assert sum(not value.isdigit() for value in lines.values()) == hops


def test_the_common_words_are_the_most_common(room_of):
    for sample in samples("common_words", room_of):
        words = Counter(re.findall(r"\d+\. ([a-z]+)", sample.context))
        most = words.most_common()
        assert {word for word, _ in most[:5]} == set(sample.questions[0].answers)
        assert most[4][1] == 8
        assert most[5][1] == 1


def test_where_words_run_out_the_common_ones_stay_ahead(text, wording):
    few = Room.of("The quick brown animal went home again today, said nobody. " * 20, wording, 900)
    sample = draw(CommonWords(common=2, times=3), few, 0)
    words = Counter(re.findall(r"\d+\. ([a-z]+)", sample.context)).most_common()
    assert {word for word, _ in words[:2]} == set(sample.questions[0].answers)
    assert words[1][1] > words[2][1]


def test_a_copied_list_goes_on_as_it_did(room_of):
    for sample in samples("copying", room_of):
        words = sample.context.removeprefix("list: ").split()
        for question in sample.questions:
            begun = question.answer_prefix.removeprefix("again: ").split()
            found = [
                tuple(words[at + 2 : at + 6])
                for at in range(len(words))
                if words[at : at + 2] == begun
            ]
            assert found == [question.answers]


def test_the_right_answer_to_a_copied_list_is_written_as_the_list_goes_on(
    room_of, wording, shipped
):
    sample = samples("copying", room_of)[0]
    for question in sample.questions:
        ids = wording.question_ids(sample, question) + wording.answer_ids(sample, question)
        words = shipped[1].decode(ids).split("again: ")[1]
        assert f" {words} " in f"{sample.context} "


def test_places_of_a_list_are_spread_over_it(room_of):
    sample = draw(Copying(places=4), room_of(1024), 2)
    places = sorted(
        sample.context.index(q.answer_prefix.removeprefix("again: ")) / len(sample.context)
        for q in sample.questions
    )
    assert places[0] < 0.3
    assert places[-1] > 0.7


def test_prose_goes_on_as_the_text_does(room_of, text):
    for sample in samples("prose", room_of):
        (goes_on,) = sample.questions
        passage = sample.context + goes_on.right
        assert (text + "\n" + text).count(passage)
        assert 0.1 < len(goes_on.right) / len(passage) < 0.15
        assert goes_on.right.startswith(" ")


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ValueError, match=r"must be one of prose, .*'nedle'. Did you mean 'needle'"):
        tasks.named("nedle")


def test_every_task_that_is_exported_has_a_name_of_its_own():
    classes = {getattr(tasks, name) for name in tasks.__all__}
    assert {type(task) for task in BUILT_IN} == classes
    assert len(set(tasks.names())) == len(BUILT_IN)
    assert [tasks.named(name) for name in tasks.names()] == list(BUILT_IN)


def test_every_task_says_where_it_comes_from(root_of_tasks):
    for path in root_of_tasks.glob("*.py"):
        if path.stem not in ("__init__", "asking", "names"):
            source = path.read_text(encoding="utf-8")
            assert "Reference:" in source or "Original:" in source


@pytest.fixture
def root_of_tasks():
    from pathlib import Path

    return Path(tasks.__file__).parent


def test_two_words_of_a_copied_list_tell_a_place():
    words = draw_list(random.Random(0), 30_000)
    assert len(set(pairwise(words))) == len(words) - 1


def test_there_are_labels_for_contexts_of_a_million_tokens():
    """More of them than two or three names can make."""
    assert Room("", (), Wording(str.split), 1_000_000).most_rows > 88_000
    assert len(set(draw_labels(random.Random(0), 88_000))) == 88_000


def test_a_text_without_words_to_count_is_refused_in_a_sentence(wording):
    text = "Ba du la mi no pu, ra so ti vu wa xe ya zo ku po. " * 30
    with pytest.raises(NoRoom, match=r"`text` must hold at least 10 different words .* got 0\."):
        draw(CommonWords(), Room.of(text, wording, 900), 0)


def test_words_of_other_alphabets_are_counted(wording):
    text = "Быстрая лисица прыгнула через ленивую собаку возле старого дома. " * 20
    sample = draw(CommonWords(common=2, times=3), Room.of(text, wording, 900), 0)
    words = Counter(re.findall(r"\d+\. (\w+)", sample.context)).most_common()
    assert {word for word, _ in words[:2]} == set(sample.questions[0].answers)


@pytest.mark.parametrize("future", [0, 1, -0.5])
def test_prose_has_something_to_read_and_something_to_predict(future):
    with pytest.raises(ValueError, match="`future` must lie between 0 and 1"):
        tasks.Prose(future=future)


@pytest.mark.parametrize("future", [0.01, 0.99])
def test_of_a_little_prose_some_is_read_and_some_predicted(room_of, future):
    sample = draw(tasks.Prose(future), room_of(20), 0)
    assert sample.context
    assert sample.questions[0].right


def test_a_value_cannot_be_handed_on_less_than_never(room_of):
    with pytest.raises(ValueError, match="`hops` must be at least 0"):
        draw(VariableTracking(hops=-1), room_of(400), 0)
