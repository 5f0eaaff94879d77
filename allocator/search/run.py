"""Making the trials of a study until there are enough."""

from collections.abc import Iterator
from math import isnan, nan
from typing import TYPE_CHECKING

import numpy as np

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.relaxation import used_bytes

from .objective import to_number
from .sampler import seed_of_trial
from .storage import place_text
from .study import DRAWS, open_study
from .task import Task
from .trial_record import Outcome

if TYPE_CHECKING:
    import optuna

START, LEVELS, OUTCOME = "kvbudget_start", "kvbudget_levels", "kvbudget_outcome"
LEAST_OTHERS = 5
"""Trials that must have been measured to the end before one can be given up."""


def run(task: Task) -> "tuple[list[optuna.trial.FrozenTrial], tuple[str, ...]]":
    """Make the trials of a task that its study lacks.

    Trials that a killed process left unfinished do not count. Those whose objective raised an
    error do not either.

    Returns:
        All trials that ended, oldest first, and what to say about earlier runs.
    """
    study = open_study(task)
    before = len(ended(study))
    try:
        made = make_trials(study, task)
    except BaseException as error:
        if task.storage is not None:
            error.add_note(kept_text(len(ended(study)), task))
        raise
    return ended(study), notes_of(study, task, before, made)


def make_trials(study: "optuna.Study", task: Task) -> int:
    """Make what a study lacks; return how many trials that took."""
    made = 0
    for index in missing_starts(study, task, wait=True):
        enqueue(study, task, index)
    while len(ended(study)) < task.trials and not reached(study, task):
        make_trial(study, task)
        made += 1
    # starts that someone began and never ended
    for index in missing_starts(study, task, wait=False):
        if not reached(study, task):
            enqueue(study, task, index)
            make_trial(study, task)
            made += 1
    return made


def kept_text(count: int, task: Task) -> str:
    """What a search that broke off has left in its storage."""
    trials = "1 trial is" if count == 1 else f"{count} trials are"
    return f"{trials} kept in {place_text(task.storage)}; run it again to go on."


def notes_of(study: "optuna.Study", task: Task, before: int, made: int) -> tuple[str, ...]:
    """Sentences on a study that earlier runs began.

    Args:
        study: The study.
        task: Its task.
        before: Trials that had ended when this run began.
        made: Trials that this run made.
    """
    if not before:
        return ()
    earlier = "1 trial was" if before == 1 else f"{before} trials were"
    now = {0: "none was", 1: "1 was"}.get(made, f"{made} were")
    notes = [f"{earlier} already in {place_text(task.storage)}, {now} run now."]
    if (drawn := study.user_attrs.get(DRAWS)) != task.draws:
        notes.append(f"The first ones were drawn with {drawn}, not with {task.draws}.")
    return tuple(notes)


def ended(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """Trials with an outcome, whoever made them."""
    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if t.state.is_finished() and OUTCOME in t.user_attrs]


def measured(study: "optuna.Study") -> Iterator[tuple[float, list[int]]]:
    """Value and levels of every trial that was measured to the end."""
    for trial in ended(study):
        if trial.user_attrs[OUTCOME] == Outcome.MEASURED.name:
            yield trial.values[-1], trial.user_attrs[LEVELS]


def reached(study: "optuna.Study", task: Task) -> bool:
    """Whether a value is as low as it can be."""
    return any(value <= task.enough for value, _ in measured(study))


def missing_starts(study: "optuna.Study", task: Task, *, wait: bool) -> list[int]:
    """Starts that nobody has made.

    Args:
        study: The study.
        task: Its task.
        wait: Whether those that someone has begun, or will begin, count as made.
    """
    trials = ended(study)
    if wait:
        trials += [t for t in study.get_trials(deepcopy=False) if not t.state.is_finished()]
    made = {trial.user_attrs.get(START) for trial in trials}
    return [index for index in range(len(task.starts[: task.trials])) if index not in made]


def enqueue(study: "optuna.Study", task: Task, index: int) -> None:
    """Make a start the next trial."""
    names = [dimension.name for dimension in task.parameters.dimensions(task.problem)]
    values = dict(zip(names, task.starts[index].values, strict=True))
    study.enqueue_trial(values, user_attrs={START: index})


def make_trial(study: "optuna.Study", task: Task) -> None:
    """Make one trial, and write down how it ended even if its objective raises an error."""
    from optuna.trial import TrialState

    trial = study.ask()
    study.sampler = task.sampler.build(seed_of_trial(task.seed, trial.number))
    try:
        levels = suggest(trial, task)
        outcome, value = measure(study, trial, task, levels)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    trial.set_user_attr(OUTCOME, outcome.name)
    finish(study, trial, task, outcome, [float(used_bytes(task.problem, levels)), value])


def finish(
    study: "optuna.Study",
    trial: "optuna.Trial",
    task: Task,
    outcome: Outcome,
    values: list[float],
) -> None:
    """Tell Optuna how a trial ended.

    Args:
        study: The study.
        trial: The trial.
        task: What the study is for.
        outcome: How it ended.
        values: Bytes and value.
    """
    from optuna.trial import TrialState

    if outcome is Outcome.PRUNED:
        study.tell(trial, state=TrialState.PRUNED)
    elif task.bytes_too and outcome is not Outcome.FAILED:
        trial.set_constraint("over_bytes", values[0] - task.problem.budget_bytes)
        study.tell(trial, values)
    elif outcome in (Outcome.MEASURED, Outcome.REPEATED):
        study.tell(trial, values[1])
    else:
        study.tell(trial, state=TrialState.FAIL)


def suggest(trial: "optuna.Trial", task: Task) -> Ints:
    """Levels of a trial, int64 [units]: of its start, or of the values drawn for it."""
    dimensions = task.parameters.dimensions(task.problem)
    values = np.array([dimension.suggest(trial) for dimension in dimensions])
    start = trial.user_attrs.get(START)
    levels = None if start is None else task.starts[start].levels
    if levels is None:
        levels = task.parameters.levels(task.problem, values)
    trial.set_user_attr(LEVELS, levels.tolist())
    return levels


def measure(
    study: "optuna.Study", trial: "optuna.Trial", task: Task, levels: Ints
) -> tuple[Outcome, float]:
    """How a trial ends, and its value; a choice that was measured before is not measured again."""
    if used_bytes(task.problem, levels) > task.problem.budget_bytes:
        return Outcome.OVER_BUDGET, task.problem.total_loss(levels)
    known = {tuple(others): value for value, others in measured(study)}
    if tuple(levels.tolist()) in known:
        return Outcome.REPEATED, known[tuple(levels.tolist())]
    answer = task.measure(levels)
    if isinstance(answer, Iterator):
        return measure_by_steps(study, trial, task, answer)
    value = to_number(answer)
    return Outcome.FAILED if isnan(value) else Outcome.MEASURED, value


def measure_by_steps(
    study: "optuna.Study", trial: "optuna.Trial", task: Task, estimates: Iterator[object]
) -> tuple[Outcome, float]:
    """Take estimates until there are no more or the trial is hopeless."""
    value = nan
    for step, estimate in enumerate(estimates):
        value = to_number(estimate)
        if isnan(value):
            break
        if not task.bytes_too:
            trial.report(value, step)
            if START not in trial.user_attrs and hopeless(study, step, value):
                return Outcome.PRUNED, value
    return Outcome.FAILED if isnan(value) else Outcome.MEASURED, value


def hopeless(study: "optuna.Study", step: int, value: float) -> bool:
    """Whether an estimate is worse than half of those that others had at this step."""
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    others = [t.intermediate_values[step] for t in complete if step in t.intermediate_values]
    return len(others) >= LEAST_OTHERS and value > float(np.median(others))
