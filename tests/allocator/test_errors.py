import pytest

from kvbudget.allocator import (
    BadFile,
    InfeasibleBudget,
    KVBudgetError,
    UnsupportedModel,
    WrongModel,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InfeasibleBudget, ValueError),
        (UnsupportedModel, NotImplementedError),
        (BadFile, ValueError),
        (WrongModel, ValueError),
    ],
)
def test_every_error_is_ours_and_a_builtin(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, KVBudgetError)
    assert issubclass(error, builtin)
