"""Room is filled with prose, and says when there is too little of it."""

import random

import pytest

from kvbudget.evaluation import Question, Room, Sample


def test_a_text_with_too_few_sentences_is_refused(wording):
    with pytest.raises(ValueError, match=r"`text` must hold at least 20 sentences .* got 1\."):
        Room.of("This is a sentence of some forty characters.", wording, 100)


def test_a_passage_is_the_text_as_it_stands_and_begins_anew_at_its_end(wording):
    text = "  ".join(f"Sentence number {n} is long enough to count,\n\n it is." for n in range(30))
    room = Room.of(text, wording, 100)
    first = room.passage(random.Random(3))
    passage = "".join(first(1000))
    assert len(first(1000)) == 1000
    assert first(7) == first(1000)[:7]
    assert (text + "\n" + text + "\n" + text + "\n" + text).count(passage.strip()) == 1


def test_a_task_that_runs_out_of_what_it_counts_comes_to_an_end(room_of):
    def build(size):
        context = " ".join(["word"] * min(size, 5))
        return Sample(context, (Question("", "", ("x",), 1),), "short")

    assert room_of(300).largest("short", build).context.split() == ["word"] * 5


def test_prose_gives_exactly_the_words_asked_for_in_order(room_of):
    prose = room_of(100).prose(random.Random(1))
    assert [len(" ".join(prose(count)).split()) for count in (0, 1, 10, 300)] == [0, 1, 10, 300]
    assert " ".join(prose(300)).startswith(" ".join(prose(10)))


def test_no_hidden_number_stands_in_the_text_already(wording):
    numbers = " ".join(f"{number:04d}" for number in range(9990))
    sentence = "This is a sentence of some forty characters. "
    room = Room.of(sentence * 20 + numbers, wording, 100)
    needles = [needle for seed in range(20) for needle in room.needles(random.Random(seed), 3)]
    assert len(needles) == 60
    assert all(len(needle.number) > 4 or needle.number >= "9990" for needle in needles)


@pytest.mark.parametrize("count", [0, 23])
def test_needles_for_which_there_are_no_names_are_refused(room_of, count):
    with pytest.raises(ValueError, match="`needles` must be at"):
        room_of(100).needles(random.Random(0), count)
