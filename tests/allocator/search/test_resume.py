"""Searches that are killed, resumed, and shared between processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from kvbudget.allocator import BadFile, Plan, Problem
from kvbudget.allocator.search import (
    LayerGroups,
    NsgaII,
    Outcome,
    PriceAndGroups,
    SearchResult,
    ShareAndRatio,
    search_front,
    search_plans,
)
from kvbudget.allocator.search.storage import open_storage
from kvbudget.allocator.solvers.optuna_search import OptunaSearch

Objective = Callable[[Plan], float]

# searches a small model and writes down which process measured which plan
PROGRAM = """
import json, os, sys, time
import numpy as np
from kvbudget.allocator import Geometry, Problem, Profile
from kvbudget.allocator.search import search_plans
from kvbudget.allocator.search.storage import open_storage
from kvbudget.allocator.solvers.optuna_search import OptunaSearch

storage, trials, seconds, log = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
loss = np.random.default_rng(1).exponential(size=(4, 2, 20)).cumsum(axis=-1)[..., ::-1]
geometry = Geometry("LlamaForCausalLM", 4, 2, 8, 8, "float32", (None,) * 4)
kept = np.arange(1, 21) / 20
profile = Profile(loss, loss[None], kept, geometry, "tests/model", "key_norm", (), "divergence")
problem = Problem.from_profile(profile, budget="50%", context_tokens=1000)

def objective(plan):
    with open(log, "a") as file:
        file.write(json.dumps(os.getpid()) + "\\n")
    time.sleep(seconds)
    return float((plan.kept_fraction[0] ** -2).sum() + plan.loss)

result = search_plans(problem, OptunaSearch(objective, trials=trials, storage=storage))
print(json.dumps([[r.number, r.outcome.name, r.value, r.levels.tolist()] for r in result.records]))
"""
Row = list[object]


class Renamed:
    """An objective whose name stays while what it does changes."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, plan: Plan) -> Any:
        return self.function(plan)


def start(storage: str, trials: int, seconds: float, log: Path) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", PROGRAM, storage, str(trials), str(seconds), str(log)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)


def rows(process: "subprocess.Popen[str]") -> list[Row]:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    found: list[Row] = json.loads(output)
    return found


def wait_for_lines(log: Path, count: int) -> None:
    end = time.monotonic() + 60
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert time.monotonic() < end, "the search did not get that far"
        time.sleep(0.02)


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def finished(storage: str) -> list[Row]:
    """Number and value of the trials that Optuna itself finds complete."""
    study = optuna.load_study(study_name="kvbudget", storage=open_storage(storage))
    return [[trial.number, trial.value] for trial in study.trials if trial.state.is_finished()]


@pytest.fixture(params=["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "search.log") if request.param == "journal" else (
        f"sqlite:///{tmp_path / 'search.db'}"
    )  # fmt: skip


def test_a_killed_search_goes_on_where_it_was(storage: str, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    process = start(storage, 500, 0.05, log)
    wait_for_lines(log, 7)
    kill(process)
    done = finished(storage)
    assert len(done) >= 6
    resumed = rows(start(storage, len(done) + 6, 0.0, log))
    # the plan that was being measured is lost, nothing else
    assert len(resumed) == len(done) + 6
    assert [[number, value] for number, _, value, _ in resumed[: len(done)]] == done
    alone = rows(start(str(tmp_path / "alone.log"), len(done), 0.0, log))
    assert resumed[: len(done)] == alone


def test_a_start_that_was_lost_is_made_in_the_end(tmp_path: Path) -> None:
    storage, log = str(tmp_path / "search.log"), tmp_path / "calls"
    process = start(storage, 5, 60.0, log)
    wait_for_lines(log, 1)
    kill(process)
    alone = rows(start(str(tmp_path / "alone.log"), 1, 0.0, log))
    resumed = rows(start(storage, 5, 0.0, log))
    hull = alone[0][3]
    assert len(resumed) == 6
    assert hull in [levels for _, _, _, levels in resumed]


def test_two_processes_share_a_study(storage: str, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    log.touch()
    processes = [start(storage, 24, 0.05, log) for _ in range(2)]
    found = [rows(process) for process in processes]
    most = max(found, key=len)
    assert 24 <= len(most) <= 26
    pids = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(pids.count(process.pid) >= 3 for process in processes)
    numbers = [number for number, *_ in most]
    assert len(set(numbers)) == len(numbers)
    measured = [str(levels) for _, _, _, levels in most]
    assert len(set(measured)) >= 12


def search(objective: Any, path: Path, trials: int, **more: object) -> OptunaSearch:
    return OptunaSearch(objective, trials=trials, storage=path, **more)  # type: ignore[arg-type]


def test_a_resumed_search_makes_the_trials_of_an_uninterrupted_one(
    deep: Problem, objective: Objective, tmp_path: Path
) -> None:
    path = tmp_path / "search.log"
    for trials in (4, 15, 18):
        result = search_plans(deep, search(objective, path, trials))
        assert len(result.records) == trials
    whole = search_plans(deep, OptunaSearch(objective, trials=18))
    assert result.records == whole.records


def test_a_finished_search_measures_nothing_more(
    deep: Problem, objective: Objective, tmp_path: Path
) -> None:
    path = tmp_path / "search.log"
    first = search_plans(deep, search(Renamed(objective), path, 6))
    assert first.notes == ()

    def never(plan: Plan) -> float:
        raise AssertionError("measured again")

    again = search_plans(deep, search(Renamed(never), path, 6))
    assert again.records == first.records
    assert again.notes == (f"6 trials were already in {path}, none was run now.",)
    assert again.notes[0] in str(again)
    assert search_plans(deep, search(Renamed(never), path, 3)).best == first.best


def test_a_resumed_search_says_how_much_was_there(
    deep: Problem, objective: Objective, tmp_path: Path
) -> None:
    path = tmp_path / "search.log"
    notes = [search_plans(deep, search(objective, path, trials)).notes for trials in (1, 2, 6)]
    assert notes == [
        (),
        (f"1 trial was already in {path}, 1 was run now.",),
        (f"2 trials were already in {path}, 4 were run now.",),
    ]


def test_another_sampler_or_seed_goes_on_and_is_named(
    deep: Problem, objective: Objective, tmp_path: Path
) -> None:
    path = tmp_path / "search.log"
    search_plans(deep, search(objective, path, 3))
    for other, text in (
        (search(objective, path, 4, sampler=NsgaII(4)), "NsgaII(population=4) and seed 0"),
        (search(objective, path, 5, seed=9), "Tpe(startup_trials=10) and seed 9"),
    ):
        _, note = search_plans(deep, other).notes
        assert note == (
            f"The first ones were drawn with Tpe(startup_trials=10) and seed 0, not with {text}."
        )


def test_the_trials_of_another_objective_are_refused(
    deep: Problem, objective: Objective, tmp_path: Path
) -> None:
    calls: list[Plan] = []

    def other(plan: Plan) -> float:
        calls.append(plan)
        return plan.loss

    path = tmp_path / "search.log"
    for run in (search_plans, search_front):
        run(deep, search(objective, path, 3, study_name=run.__name__))
        with pytest.raises(ValueError, match=r"another objective than .*<locals>\.other\. Choose"):
            run(deep, search(other, path, 3, study_name=run.__name__))
    assert calls == []


def test_trials_before_an_error_are_kept_and_the_broken_one_is_made_again(
    deep: Problem, objective: Objective, tmp_path: Path
) -> None:
    path, calls = tmp_path / "search.log", []

    def breaks_once(plan: Plan) -> float:
        calls.append(plan)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return objective(plan)

    with pytest.raises(KeyboardInterrupt) as caught:
        search_plans(deep, search(breaks_once, path, 10))
    assert caught.value.__notes__ == [f"4 trials are kept in {path}; run it again to go on."]
    result = search_plans(deep, search(breaks_once, path, 10))
    assert len(result.records) == 10
    assert all(record.outcome is Outcome.MEASURED for record in result.records)
    assert 4 not in [record.number for record in result.records]


def test_an_interrupt_without_a_storage_promises_nothing(deep: Problem) -> None:
    def interrupted(plan: Plan) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        search_plans(deep, OptunaSearch(interrupted))
    assert not hasattr(caught.value, "__notes__")


def test_the_plan_of_the_hull_is_measured_after_an_error(
    deep: Problem, objective: Objective, tmp_path: Path
) -> None:
    path = tmp_path / "search.log"

    def broken(plan: Plan) -> float:
        raise RuntimeError("at once")

    with pytest.raises(RuntimeError, match="at once") as caught:
        search_plans(deep, search(Renamed(broken), path, 3))
    assert caught.value.__notes__ == [f"0 trials are kept in {path}; run it again to go on."]
    result = search_plans(deep, search(Renamed(objective), path, 3))
    first = search_plans(deep, OptunaSearch(objective, trials=1)).best
    assert result.records[0].levels.tolist() == first.levels.tolist()
    assert len(result.records) == 3


def test_the_plan_of_the_hull_is_measured_to_the_end_however_late(
    deep: Problem, objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "search.log"
    hull = search_plans(deep, OptunaSearch(objective, trials=1)).best.levels.tolist()

    def dies(*ignored: object, **ignored_too: object) -> float:
        # nothing can be written down any more, as if the process had been killed
        monkeypatch.setattr(optuna.Study, "tell", dies)
        raise KeyboardInterrupt

    def hull_is_worst(plan: Plan) -> Iterator[float]:
        yield 1e9 - plan.loss
        yield 1e9 - plan.loss

    with pytest.raises(KeyboardInterrupt):
        search_plans(deep, search(Renamed(dies), path, 12))
    monkeypatch.undo()
    result = search_plans(deep, search(Renamed(hull_is_worst), path, 12))
    assert len(result.records) == 13
    assert result.records[-1].levels.tolist() == hull
    assert result.records[-1].outcome is Outcome.MEASURED


def test_a_start_that_is_made_in_the_end_is_counted(
    deep: Problem, objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / "search.log", []

    def dies(*ignored: object, **ignored_too: object) -> None:
        raise KeyboardInterrupt

    def dies_at_second(plan: Plan) -> float:
        calls.append(plan)
        if len(calls) == 2:
            monkeypatch.setattr(optuna.Study, "tell", dies)
            dies()
        return objective(plan)

    mine = search(dies_at_second, path, 3, parameters=ShareAndRatio())
    with pytest.raises(KeyboardInterrupt):
        search_plans(deep, mine)
    monkeypatch.undo()
    result = search_plans(deep, mine)
    assert len(result.records) == 4
    assert result.notes == (f"1 trial was already in {path}, 3 were run now.",)


def changed(problem: Problem, **fields: object) -> Problem:
    names = ("loss", "cost_bytes", "budget_bytes", "origin")
    return Problem(**{**{name: getattr(problem, name) for name in names}, **fields})  # type: ignore[arg-type]


def test_a_study_of_something_else_is_refused(
    deep: Problem, objective: Objective, tmp_path: Path
) -> None:
    path = tmp_path / "search.log"
    mine = search(objective, path, 3)
    search_plans(deep, mine)

    def refused(run: Callable[[], SearchResult]) -> None:
        with pytest.raises(ValueError, match="`study_name` must name a study of this problem"):
            run()

    refused(lambda: search_plans(changed(deep, budget_bytes=deep.budget_bytes - 1), mine))
    refused(lambda: search_plans(changed(deep, loss=deep.loss * 2), mine))
    refused(lambda: search_plans(deep, search(objective, path, 3, parameters=LayerGroups())))
    refused(lambda: search_plans(deep, search(objective, path, 3, parameters=PriceAndGroups(2))))
    refused(lambda: search_plans(deep, search(None, path, 3)))
    refused(lambda: search_front(deep, mine))
    other = search_plans(
        changed(deep, loss=deep.loss * 2), search(objective, path, 3, study_name="b")
    )
    assert len(other.records) == 3
    assert len(search_plans(deep, search(objective, path, 4, seed=9)).records) == 4


def test_a_journal_that_ends_in_the_middle_of_a_line_goes_on(
    deep: Problem, objective: Objective, tmp_path: Path
) -> None:
    path = tmp_path / "search.log"
    first = search_plans(deep, search(objective, path, 5))
    with path.open("ab") as file:
        file.write(b'{"op_code":6,"worker_id":"half a li')
    for trials in (8, 9):
        result = search_plans(deep, search(objective, path, trials))
        assert len(result.records) == trials
        assert result.records[:5] == first.records


@pytest.mark.parametrize(
    "content", [b"hello", b"{}\n", b"\x00" * 99, b'{"format": "kvbudget-plan"']
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(
    deep: Problem, objective: Objective, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=r"plan\.json is not a usable journal of a search"):
        search_plans(deep, search(objective, path, 3))
    assert path.read_bytes() == content


def test_places_that_cannot_hold_a_journal_are_refused(
    deep: Problem, objective: Objective, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="`storage` must lie in a folder that exists"):
        search_plans(deep, search(objective, tmp_path / "none" / "search.log", 3))
    with pytest.raises(BadFile, match="not a usable journal"):
        search_plans(deep, search(objective, tmp_path, 3))
    damaged = tmp_path / "damaged.log"
    damaged.write_bytes(b'{"op_code":0}\n{"op_code":\n{"op_code":0}\n')
    with pytest.raises(BadFile, match="not a usable journal"):
        search_plans(deep, search(objective, damaged, 3))
