"""Descriptions of Optuna's samplers."""

import optuna
import pytest

from kvbudget.allocator.search import CmaEs, NsgaII, Sampler, Tpe
from kvbudget.allocator.search.sampler import check_front, seed_of_trial


def test_only_a_sampler_of_several_objectives_searches_fronts() -> None:
    for sampler in (Tpe(), NsgaII()):
        check_front(sampler)
    with pytest.raises(ValueError, match=r"`sampler` .* got CmaEs\(population=4\)\. Pass Tpe\(\)"):
        check_front(CmaEs(4))


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        (Tpe(), optuna.samplers.TPESampler),
        (CmaEs(), optuna.samplers.CmaEsSampler),
        (CmaEs(population=6), optuna.samplers.CmaEsSampler),
        (NsgaII(), optuna.samplers.NSGAIISampler),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("error")
def test_a_sampler_builds_its_namesake_without_a_warning(sampler: Sampler, kind: type) -> None:
    assert type(sampler.build(3)) is kind
    assert sampler == eval(repr(sampler))


def test_seeds_differ_between_trials_and_searches_and_repeat() -> None:
    seeds = [seed_of_trial(seed, number) for seed in range(20) for number in range(20)]
    assert len(set(seeds)) == 400
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert seed_of_trial(3, 4) == seed_of_trial(3, 4)


@pytest.mark.parametrize(
    ("make", "name"), [(lambda: Tpe(0), "startup_trials"), (lambda: NsgaII(1), "population")]
)
def test_counts_that_are_too_small_are_refused(make: object, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least"):
        make()  # type: ignore[operator]
