"""Memory is counted as long as it lives, and time until the work is done."""

import torch

from kvbudget.evaluation.clock import peak_bytes, timed

CPU = [torch.device("cpu")]


def test_the_peak_is_what_lived_at_once():
    def work():
        one = torch.zeros(1000)
        del one
        two = torch.zeros(500)
        return two, torch.zeros(250)

    assert peak_bytes(CPU, work) == 4000


def test_tensors_of_before_and_views_do_not_count():
    before = torch.zeros(1000)

    def work():
        before.add_(1)
        view = before[10:].view(-1)
        return view, torch.zeros(10)

    assert peak_bytes(CPU, work) == 40


def test_a_result_comes_with_the_seconds_between_two_looks_at_the_clock(monkeypatch):
    looks = iter((10.0, 12.5))
    monkeypatch.setattr("time.perf_counter", lambda: next(looks))
    assert timed(CPU, lambda: "done") == ("done", 2.5)


def test_peaks_of_several_gpus_are_added_up_without_what_was_there_before(monkeypatch):
    """Allocators made up; the processor's memory does not count beside them."""
    used, most = {0: 100, 1: 1000}, {0: 0, 1: 0}
    names = ("synchronize", "memory_allocated", "max_memory_allocated", "reset_peak_memory_stats")
    reset = lambda device: most.__setitem__(device.index, used[device.index])  # noqa: E731
    ask = (lambda d: None, lambda d: used[d.index], lambda d: most[d.index], reset)
    for name, answer in zip(names, ask, strict=True):
        monkeypatch.setattr(torch.cuda, name, answer)
    devices = [torch.device("cuda", 0), torch.device("cpu"), torch.device("cuda", 1)]
    assert peak_bytes(devices, lambda: most.update({0: 105, 1: 1070})) == 75
    assert peak_bytes(devices, lambda: None) == 0
