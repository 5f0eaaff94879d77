"""Choose launch settings by measuring them on this machine's GPU.

Nothing is measured unasked: the tables of `launches` hold until `tune` is called once, on a GPU
that is otherwise idle. What it finds is kept in the user's cache folder (see `tuned`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from statistics import median

import torch
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources

from .launches import TABLES, Launch, Program, forget_choices, generation_of, using
from .tuned import write_tuned
from .workload import Call, Workload

# times differ by as much between two measurements of the same thing
_LEAST_GAIN = 0.02
_ROUNDS = 20
_DEFAULT = Workload()

Timer = Callable[[Call], float]


def tune(
    workload: Workload = _DEFAULT, device: torch.device | None = None
) -> dict[Program, Launch]:
    """Measure the alternatives of every program that a workload launches; keep the fastest.

    Takes about a minute, most of it compiling. Later runs of this and other programs on the same
    GPU launch with what was found; a program that no call of the workload launches keeps its
    setting. Settings apply to all sizes of a program, so tune for the model you run most.

    Args:
        workload: The calls to measure.
        device: A CUDA device; None is the current one.

    Returns:
        The settings chosen. A default is left only for one that is faster by 2 %.

    Raises:
        ValueError: If there is no GPU, or the device is none.
        OSError: If the cache folder cannot be written.
    """
    if not torch.cuda.is_available():
        raise ValueError("`tune` must run where there is a GPU, but torch sees none.")
    device = torch.device("cuda", torch.cuda.current_device()) if device is None else device
    if device.type != "cuda":
        raise ValueError(f"`device` must be a CUDA device, but got {device}.")
    with torch.cuda.device(device):
        found = choose(workload.calls(device), device, _Clock(device).milliseconds)
    numbers = {program.value: list(launch) for program, launch in found.items()}
    write_tuned(torch.cuda.get_device_name(device), numbers)
    forget_choices()
    return found


def choose(
    calls: Iterator[Call], device: torch.device, milliseconds: Timer
) -> dict[Program, Launch]:
    """Find the fastest settings of every program that some calls launch; the first call decides.

    Args:
        calls: To be made again and again.
        device: Where they run.
        milliseconds: Tells the time that a call takes there.
    """
    table, found = TABLES[generation_of(device)], dict[Program, Launch]()
    for call in calls:
        # one at a time: a call gets past settings that this GPU refuses once others are found
        while program := _next_launched(call, found):
            with using(found):
                found[program] = _fastest(call, program, table[program], milliseconds)
    return found


class _Noting(Mapping[Program, Launch]):
    """Forces what is given, and notes which other programs ask for settings, in their order."""

    def __init__(self, given: Mapping[Program, Launch]) -> None:
        self._given = given
        self.asked: list[Program] = []

    def __getitem__(self, program: Program) -> Launch:
        if program not in self._given:
            self.asked.append(program)
        return self._given[program]

    def __iter__(self) -> Iterator[Program]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


def _next_launched(call: Call, found: Mapping[Program, Launch]) -> Program | None:
    """The first program of a call that nothing was found for yet."""
    noting = _Noting(found)
    with using(noting), suppress(CompilationError, OutOfResources):
        call()
    return noting.asked[0] if noting.asked else None


def _fastest(
    call: Call, program: Program, choices: tuple[Launch, ...], milliseconds: Timer
) -> Launch:
    times: dict[Launch, list[float]] = {x: [] for x in choices if _runs(call, program, x)}
    # in turns, so that a clock that slows down slows all of them down
    for _ in range(_ROUNDS):
        for launch, its_times in times.items():
            with using({program: launch}):
                its_times.append(milliseconds(call))
    medians = {launch: median(its_times) for launch, its_times in times.items()}
    default = choices[0]
    best = min(medians, key=lambda launch: medians[launch], default=default)
    if default in medians and medians[best] > (1 - _LEAST_GAIN) * medians[default]:
        return default
    return best


def _runs(call: Call, program: Program, launch: Launch) -> bool:
    """Whether this GPU takes the settings; it is compiled and warm afterwards."""
    try:
        with using({program: launch}):
            call()
    except (CompilationError, OutOfResources):
        return False
    return True


class _Clock:
    """Times calls on a GPU whose caches hold nothing of use, as in a model of many layers.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._other = torch.empty(2**28, dtype=torch.uint8, device=device)

    def milliseconds(self, call: Call) -> float:
        """Time of one call without that of the host: it launches while the caches are emptied."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(3):
            self._other.zero_()
        start.record()
        call()
        end.record()
        end.synchronize()
        elapsed: float = start.elapsed_time(end)
        return elapsed
