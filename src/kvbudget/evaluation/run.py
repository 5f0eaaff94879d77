"""Run tasks on a model with its full cache and within plans."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from tqdm import tqdm

from kvbudget.allocator import Plan
from kvbudget.prose import built_in_sentences
from kvbudget.runtime import Adaptation, geometry_of
from kvbudget.runtime.evaluating import evaluating
from kvbudget.runtime.session import check_same_model

from .caches import PlannedCache
from .evaluation import Evaluation
from .limits import (
    DEFAULT_CONTEXT,
    check_counts,
    check_lengths,
    check_lists,
    context_for,
    named_plans,
)
from .origin import Origin
from .reading import Reader
from .room import NoRoom, Room
from .runner import Runner
from .sample import Sample
from .task import Task, draw
from .tasks import BUILT_IN
from .wording import Wording

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kvbudget.heuristics import TokenHeuristic

Plans = Plan | Mapping[str, Plan] | None


def evaluate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    plan: Plans = None,
    *,
    tasks: Sequence[Task] | None = None,
    dataset: Sequence[Sample] = (),
    context_tokens: int | None = None,
    samples: int = 8,
    seed: int = 0,
    question_known: bool = False,
    text: str | None = None,
    heuristic: "TokenHeuristic | None" = None,
    adapt: Adaptation | None = None,
    full: bool = True,
    chat: bool = True,
    name: str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Run tasks with the full cache and within plans: scores beside bytes and times.

        plan = kvb.allocate(profile, budget="25%", context_tokens=1024)
        print(kvb.evaluate(model, tokenizer, plan))

    Each context is read, and cut, before anybody knows the question; the questions about it follow
    one by one, each behind what was kept of the context. Answers are greedy. All caches read the
    same samples. Keys and values are counted in the live storages behind each question and answer.

    Args:
        model: A causal LM of a supported family, in evaluation mode or not.
        tokenizer: Its tokenizer.
        plan: A plan, or several under names of their own; None for the full cache alone.
        tasks: What to run; all of `kvbudget.evaluation.tasks.BUILT_IN` that have room by default,
            and none if there is a data set.
        dataset: Samples of a file, as `kvbudget.evaluation.read_samples` gives them.
        context_tokens: Most tokens of context, question and answer together; by default what the
            shortest plan is made for, or 1024.
        samples: Contexts for each task.
        seed: Of the first sample; the same seed gives the same samples.
        question_known: Read each question together with the context, before the cache is cut; of a
            conversation the first.
        text: Prose to hide things in and to go on with; Python's own reference by default.
        heuristic: Chooses the tokens to keep; the one each plan was made for by default.
        adapt: Divides each plan's bytes anew for each context.
        full: Whether to run the full cache, too; without it there is no divergence.
        chat: Whether to use the tokenizer's chat template, if it has one.
        name: What to call the model; the name it was loaded by if None.
        progress: Show a progress bar with the time left on stderr.

    Returns:
        One row for each task and cache.

    Raises:
        WrongModel: A plan was made for another model.
        UnsupportedModel: The model's caches cannot be cut exactly.
        TypeError: A plan or a task is none.
        ValueError: There is nothing to run, a task comes twice, a count is below 1, a context is
            longer than a plan or the model allows, or a task has no room.
    """
    check_counts(samples, context_tokens, seed)
    check_lists(tasks, dataset)
    plans = named_plans(plan, full)
    for each in plans.values():
        check_same_model(each, geometry_of(model))
    wording = Wording.of(tokenizer, chat)
    found, size = list(dataset), None
    if tasks or not dataset:
        size = context_for(model, plans, context_tokens)
        drawn = draw_samples(
            tokenizer,
            tasks=tasks,
            context_tokens=size,
            samples=samples,
            seed=seed,
            text=text,
            chat=chat,
        )
        found = [*drawn, *dataset]
    check_lengths(model, plans, wording, found)
    runner = Runner(
        Reader(model, tokenizer, wording, question_known),
        {name: PlannedCache(plan, heuristic, adapt) for name, plan in plans.items()},
        full,
    )
    with (
        evaluating(model),
        tqdm(total=runner.work(found), desc="evaluating", disable=not progress) as bar,
    ):
        rows = [row for group in by_task(found) for row in runner.rows(group, bar.update)]
    origin, drawn_of = Origin.of(model, name), "" if size is None else text_fingerprint(text)
    return Evaluation(tuple(rows), size, question_known, seed, origin, drawn_of)


def draw_samples(
    tokenizer: "PreTrainedTokenizerBase",
    *,
    tasks: Sequence[Task] | None = None,
    context_tokens: int = DEFAULT_CONTEXT,
    samples: int = 8,
    seed: int = 0,
    text: str | None = None,
    chat: bool = True,
) -> list[Sample]:
    """The samples that `evaluate` runs with the same arguments, task by task.

    Args:
        tokenizer: Counts the tokens.
        tasks: What to draw; all built-in ones that have room by default.
        context_tokens: Most tokens of context, question and answer together.
        samples: Samples of each task.
        seed: Of the first sample.
        text: Prose to hide things in and to go on with; Python's own reference by default.
        chat: Whether the tokenizer's chat template is counted, if it has one.

    Raises:
        TypeError: A task is none, or the text is none.
        ValueError: A task has no room or comes twice, or the text is too short.
    """
    check_counts(samples, context_tokens, seed)
    check_lists(tasks, ())
    room = Room.of(prose_of(text), Wording.of(tokenizer, chat), context_tokens)
    wanted = fitting(BUILT_IN, room) if tasks is None else tasks
    return [draw(task, room, each) for task in wanted for each in range(seed, seed + samples)]


def prose_of(text: str | None) -> str:
    """The text, or the built-in one.

    Raises:
        TypeError: It is no text.
    """
    if text is not None and not isinstance(text, str):
        raise TypeError(f"`text` must be prose as a string, but got {text!r:.60}.")
    return " ".join(built_in_sentences()) if text is None else text


def text_fingerprint(text: str | None) -> str:
    """Sixteen hexadecimal digits of the prose that samples are made of."""
    return hashlib.sha256(prose_of(text).encode()).hexdigest()[:16]


def fitting(tasks: Iterable[Task], room: Room) -> list[Task]:
    """Those tasks that have room."""
    found = []
    for task in tasks:
        with suppress(NoRoom):
            draw(task, room, 0)
            found.append(task)
    return found


def by_task(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Samples of the same task together, in the order in which the tasks come first."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.task, []).append(sample)
    return list(groups.values())
