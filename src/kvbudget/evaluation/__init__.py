"""Tasks, run with the full cache and within plans: what is lost, beside bytes and times.

    import kvbudget as kvb

    print(kvb.evaluate(model, tokenizer, plan))

A task of your own is a frozen dataclass on `Task` with one method that draws a `Sample`.
"""

from . import tasks
from .dataset import check_kind, read_samples, write_samples
from .evaluation import Evaluation, EvaluationRow
from .harness import harness_model
from .origin import Origin
from .room import NoRoom, Room
from .run import draw_samples, evaluate
from .sample import Form, Question, Sample
from .scoring import any_found, begins_exactly, share_found, share_in_place
from .task import Task, draw
from .wording import Wording

__all__ = [
    "Evaluation",
    "EvaluationRow",
    "Form",
    "NoRoom",
    "Origin",
    "Question",
    "Room",
    "Sample",
    "Task",
    "Wording",
    "any_found",
    "begins_exactly",
    "check_kind",
    "draw",
    "draw_samples",
    "evaluate",
    "harness_model",
    "read_samples",
    "share_found",
    "share_in_place",
    "tasks",
    "write_samples",
]
