"""From the trials of a study to records."""

from collections.abc import Iterable
from math import nan
from typing import TYPE_CHECKING

import numpy as np

from kvbudget.allocator.relaxation import used_bytes

from .run import LEVELS, OUTCOME
from .task import Task
from .trial_record import Outcome, TrialRecord

if TYPE_CHECKING:
    import optuna


def records_of(task: Task, trials: "Iterable[optuna.trial.FrozenTrial]") -> tuple[TrialRecord, ...]:
    """Records of trials that ended, with the levels of the original problem."""
    names = [dimension.name for dimension in task.parameters.dimensions(task.problem)]
    return tuple(record_of(task, names, trial) for trial in trials)


def record_of(task: Task, names: list[str], trial: "optuna.trial.FrozenTrial") -> TrialRecord:
    """Record of one trial.

    Args:
        task: What its study is for.
        names: Names of the searched numbers, in the order of the dimensions.
        trial: A trial that ended.
    """
    levels = task.reduction.expand(np.array(trial.user_attrs[LEVELS], dtype=np.int64))
    levels.flags.writeable = False
    return TrialRecord(
        number=trial.number,
        outcome=Outcome[trial.user_attrs[OUTCOME]],
        parameters=tuple((name, float(trial.params[name])) for name in names),
        levels=levels,
        used_bytes=used_bytes(task.original, levels),
        loss=task.original.total_loss(levels),
        value=trial.values[-1] if trial.values else nan,
    )
