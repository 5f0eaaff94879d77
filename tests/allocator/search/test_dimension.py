"""Numbers to search."""

import optuna
import pytest

from kvbudget.allocator.search import Dimension, Real, Whole


@pytest.mark.parametrize(
    ("dimension", "given", "found"),
    [
        (Real("x", 0.0, 1.0), 0.25, 0.25),
        (Real("x", 0.1, 9, log=True), 3, 3.0),
        (Whole("x", 4), 4, 4.0),
    ],
)
def test_a_trial_gives_the_number_by_its_name(
    dimension: Dimension, given: float, found: float
) -> None:
    value = dimension.suggest(optuna.trial.FixedTrial({"x": given}))  # type: ignore[arg-type]
    assert value == found
    assert isinstance(value, float)


def test_ranges_reach_the_study() -> None:
    storage = optuna.storages.InMemoryStorage()
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "ranges")
    study = optuna.load_study(study_name=storage.get_study_name_from_id(study_id), storage=storage)
    trial = study.ask()
    Real("x", 0.5, 2.0, log=True).suggest(trial)
    Whole("y", 3).suggest(trial)
    found = trial.distributions
    assert found["x"] == optuna.distributions.FloatDistribution(0.5, 2.0, log=True)
    assert found["y"] == optuna.distributions.IntDistribution(0, 3)
