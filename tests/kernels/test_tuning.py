"""Tuning picks the fastest settings, keeps them in a file, and survives a damaged one."""

from __future__ import annotations

import json
import os

import pytest
import torch

from kvbudget.kernels import launches
from kvbudget.kernels.launches import TABLES, Generation, Launch, Program, launch_for, using
from kvbudget.kernels.tuned import read_tuned, tuned_path, write_tuned

CPU = torch.device("cpu")
GPU = "Some GPU"


@pytest.fixture(autouse=True)
def own_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    launches.forget_choices()
    yield
    launches.forget_choices()


@pytest.fixture
def tuning():
    pytest.importorskip("triton", reason="triton is not installed (made for Linux only)")
    from kvbudget.kernels import tuning

    return tuning


@pytest.fixture
def on_a_gpu(monkeypatch):
    """As if there were a GPU of a generation; returns its device."""

    def on_a_gpu(capability=(9, 0), hip=None):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: GPU)
        monkeypatch.setattr(torch.version, "hip", hip)
        launches.forget_choices()
        return torch.device("cuda", 0)

    return on_a_gpu


@pytest.mark.parametrize("generation", Generation)
def test_every_table_offers_every_program_a_default_and_two_to_four_others(generation):
    assert set(TABLES[generation]) == set(Program)
    for choices in TABLES[generation].values():
        assert 3 <= len(choices) <= 5
        assert len(set(choices)) == len(choices)
        for launch in choices:
            for size in (launch.rows, launch.tokens, launch.warps):
                assert size > 0
                assert size & (size - 1) == 0
            assert launch.stages > 0


@pytest.mark.parametrize(
    ("capability", "hip", "generation"),
    [
        ((8, 0), None, Generation.AMPERE),
        ((8, 9), None, Generation.AMPERE),
        ((9, 0), None, Generation.HOPPER),
        ((12, 0), None, Generation.HOPPER),
        ((9, 4), "6.4", Generation.CDNA3),
    ],
)
def test_a_device_takes_the_defaults_of_its_own_table(on_a_gpu, capability, hip, generation):
    device = on_a_gpu(capability, hip)
    for program, choices in TABLES[generation].items():
        assert launch_for(program, device) == choices[0]


def test_forced_settings_hold_inside_the_block_only_and_may_be_nested():
    usual = {program: launch_for(program, CPU) for program in Program}
    one, two = Launch(tokens=16), Launch(tokens=32)
    with using({Program.SELECT: one, Program.MOVE: one}):
        with using({Program.SELECT: two}):
            assert launch_for(Program.SELECT, CPU) == two
            assert launch_for(Program.MOVE, CPU) == one
            assert launch_for(Program.JOIN, CPU) == usual[Program.JOIN]
        assert launch_for(Program.SELECT, CPU) == one
    assert {program: launch_for(program, CPU) for program in Program} == usual


def test_what_was_found_is_used_by_the_gpu_it_was_found_on(on_a_gpu):
    choices = TABLES[Generation.HOPPER][Program.ATTEND_FEW]
    write_tuned(GPU, {Program.ATTEND_FEW.value: list(choices[2])})
    write_tuned("Another GPU", {Program.ATTEND_FEW.value: list(choices[1])})
    device = on_a_gpu()
    assert launch_for(Program.ATTEND_FEW, device) == choices[2]
    assert launch_for(Program.JOIN, device) == TABLES[Generation.HOPPER][Program.JOIN][0]
    assert launch_for(Program.ATTEND_FEW, CPU) == choices[0]


def test_settings_that_the_table_no_longer_offers_are_ignored(on_a_gpu):
    write_tuned(GPU, {Program.JOIN.value: [3, 3, 3, 3, 3], "no such program": [1]})
    assert launch_for(Program.JOIN, on_a_gpu()) == TABLES[Generation.HOPPER][Program.JOIN][0]


def test_what_is_found_joins_what_is_known():
    write_tuned(GPU, {"join": [1, 2], "move rows": [3]})
    write_tuned("Another GPU", {"join": [9]})
    path = write_tuned(GPU, {"join": [4]})
    assert path == tuned_path()
    assert read_tuned(GPU) == {"join": [4], "move rows": [3]}
    assert read_tuned("Another GPU") == {"join": [9]}
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"Some GPU": 3}',
        '{"Some GPU": {"join": 3}}',
        '{"Some GPU": {"join": ["x"]}}',
        '{"Some GPU": {"join": [null]}}',
        "\\ud800",
        "\x00",
    ],
)
def test_a_damaged_file_counts_as_absent_and_is_replaced(on_a_gpu, text):
    tuned_path().parent.mkdir(parents=True)
    tuned_path().write_text(text)
    assert read_tuned(GPU) == {}
    default, other, *_ = TABLES[Generation.HOPPER][Program.JOIN]
    assert launch_for(Program.JOIN, on_a_gpu()) == default
    write_tuned(GPU, {Program.JOIN.value: list(other)})
    assert launch_for(Program.JOIN, on_a_gpu()) == other
    json.loads(tuned_path().read_text())


def test_a_folder_in_the_place_of_the_file_counts_as_absent():
    tuned_path().mkdir(parents=True)
    assert read_tuned(GPU) == {}


def test_the_file_lies_below_the_home_folder_where_nothing_else_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tuned_path() == tmp_path / ".cache" / "kvbudget" / "launches.json"


def asking(*programs):
    """A call that launches these programs, and the settings it was made with."""
    made = []

    def call():
        made.append({program: launch_for(program, CPU) for program in programs})

    return call, made


def test_the_fastest_settings_are_chosen_for_what_is_launched(tuning):
    table = TABLES[Generation.HOPPER]
    call, made = asking(Program.JOIN, Program.MOVE)
    fastest = {Program.JOIN: table[Program.JOIN][1], Program.MOVE: table[Program.MOVE][2]}

    def milliseconds(call):
        call()
        return 2.0 - 0.1 * sum(made[-1][program] == fastest[program] for program in fastest)

    assert tuning.choose(iter([call]), CPU, milliseconds) == fastest


@pytest.mark.parametrize(("gain", "number"), [(0.01, 0), (0.03, 1)])
def test_a_default_is_left_only_for_a_gain_that_is_no_accident(tuning, gain, number):
    choices = TABLES[Generation.HOPPER][Program.JOIN]
    call, made = asking(Program.JOIN)

    def milliseconds(call):
        call()
        return 1.0 - gain * (made[-1][Program.JOIN] == choices[1])

    found = tuning.choose(iter([call]), CPU, milliseconds)
    assert found == {Program.JOIN: choices[number]}


def test_the_first_call_that_launches_a_program_decides(tuning):
    choices = TABLES[Generation.HOPPER][Program.JOIN]
    (first, made), (second, _) = asking(Program.JOIN), asking(Program.JOIN, Program.MOVE)

    def milliseconds(call):
        call()
        return 1.0 if call is second else 1.0 - 0.5 * (made[-1][Program.JOIN] == choices[2])

    found = tuning.choose(iter([first, second]), CPU, milliseconds)
    assert found[Program.JOIN] == choices[2]
    assert set(found) == {Program.JOIN, Program.MOVE}


@pytest.mark.parametrize("refused", [0, 1])
def test_settings_that_a_gpu_does_not_take_are_not_chosen(tuning, refused):
    from triton.runtime.errors import OutOfResources

    choices = TABLES[Generation.HOPPER][Program.JOIN]

    def call():
        if launch_for(Program.JOIN, CPU) == choices[refused]:
            raise OutOfResources(100, 99, "shared memory")

    found = tuning.choose(iter([call]), CPU, lambda call: call() or 1.0)
    assert found == {Program.JOIN: choices[1 if refused == 0 else 0]}


def test_an_error_that_is_not_the_settings_is_not_hidden(tuning):
    def call():
        launch_for(Program.JOIN, CPU)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        tuning.choose(iter([call]), CPU, lambda call: 1.0)


@pytest.mark.parametrize("device", [None, CPU, torch.device("cuda:3")])
def test_without_a_gpu_nothing_can_be_tuned(tuning, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="`tune` must run where there is a GPU"):
        tuning.tune(device=device)


def test_only_a_gpu_can_be_tuned(tuning, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="`device` must be a CUDA device, but got cpu"):
        tuning.tune(device=CPU)


def test_a_workload_makes_calls_that_the_operations_take():
    from kvbudget.kernels.workload import Workload

    sizes = {"kept_tokens": 40, "prompt_tokens": 90, "chunk_tokens": 5, "window_tokens": 3}
    small = Workload(batch=2, kv_heads=2, group=3, head_dim=16, value_dim=8, tail_tokens=4, **sizes)
    calls = list(small.calls(CPU))
    for call in calls:
        call()
        call()
    assert len(calls) == 8


def test_a_workload_that_keeps_next_to_nothing_stays_inside_its_memory():
    from kvbudget.kernels.workload import Workload

    small = Workload(kv_heads=2, head_dim=16, value_dim=16, kept_tokens=3, prompt_tokens=40)
    # a row beyond the memory is an error on the CPU
    made = [call() for call in small.calls(CPU)]
    assert len(made) == 8


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"group": 0}, "`group` must be at least 1, but got 0"),
        ({"window_tokens": 50, "prompt_tokens": 40}, "`window_tokens` must be at most the 40"),
        ({"kept_tokens": 9000}, "`kept_tokens` must be at most the 8192 prompt_tokens"),
    ],
)
def test_a_workload_of_impossible_sizes_is_refused(sizes, message):
    from kvbudget.kernels.workload import Workload

    with pytest.raises(ValueError, match=message):
        Workload(**{"kept_tokens": 30} | sizes)


def test_a_user_without_a_home_has_no_settings_and_is_told_so(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", no_home)
    assert read_tuned(GPU) == {}
    with pytest.raises(OSError, match="XDG_CACHE_HOME"):
        write_tuned(GPU, {"join": [1, 2, 3]})
