"""Opening a study: a new one, or the one that an earlier run left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .fingerprint import fingerprint
from .storage import open_storage, place_text
from .task import Task

if TYPE_CHECKING:
    import optuna

IDENTITY, DRAWS = "kvbudget_fingerprint", "kvbudget_draws"


def open_study(task: Task) -> "optuna.Study":
    """Create the study of a task, or load it if its storage holds it.

    Raises:
        FileNotFoundError: If the folder of the storage does not exist.
        BadFile: If the storage is not one.
        ValueError: If the study of this name belongs to something else.
    """
    import optuna

    with quiet():
        study = optuna.create_study(
            storage=open_storage(task.storage),
            study_name=task.study_name,
            directions=["minimize"] * (1 + task.bytes_too),
            load_if_exists=True,
        )
    claim(study, task)
    return study


def claim(study: "optuna.Study", task: Task) -> None:
    """Mark a new study as that of a task; refuse one that is not.

    Raises:
        ValueError: If the study belongs to something else.
    """
    mine = fingerprint(task.problem, task.parameters, task.kind)
    found = study.user_attrs.get(IDENTITY)
    if found is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(IDENTITY, mine)
        study.set_user_attr(DRAWS, task.draws)
    elif found != mine:
        raise ValueError(
            f"`study_name` must name a study of this problem, but the trials of"
            f" {task.study_name!r} in {place_text(task.storage)} were made for other losses,"
            f" another budget, other parameters or another objective than {task.kind}."
            " Choose another name or storage."
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from announcing studies, and leave its verbosity as it was."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
