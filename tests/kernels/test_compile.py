"""Every kernel compiles for real GPUs, in the configurations it is launched in, without a GPU.

The interpreter accepts code that the compiler refuses, and knows no limit of shared memory. Each op
lists in `<op>/aot_calls.py`, as `CALLS`, functions by name that call its Triton implementation; the
launches they make are noted, not run, and compiled with the settings of each table of `launches`.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from kvbudget.kernels.launches import SHARED_BYTES, TABLES, Generation, Launch, Program, using

OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
# the second and third axis of a grid are shorter than the first
MOST_PROGRAMS = (2**31 - 1, 2**16 - 1, 2**16 - 1)
# of a thread's registers, this many bytes may spill to memory
MOST_STACK_BYTES = 512
# strides that are multiples of a width of the model's, or 1: to know so makes loads wide
KNOWN_STRIDES = {
    *("q_b", "q_h", "q_n", "k_b", "k_h", "k_n", "v_h", "v_n", "valid_n", "positions_n"),
    *("k_batch", "k_head", "k_token", "k_dim", "v_batch", "v_head", "v_token", "v_dim"),
}
KINDS = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.uint8: "u8",
    torch.bool: "i1",
}


def calls_of(file: Path) -> dict[str, Callable[[], object]]:
    spec = importlib.util.spec_from_file_location(f"aot_calls_of_{file.parent.name}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {f"{file.parent.name}: {name}": call for name, call in module.CALLS.items()}


CALLS = {
    name: call
    for file in sorted(Path(__file__).parent.glob("*/aot_calls.py"))
    for name, call in calls_of(file).items()
}


@dataclass(frozen=True)
class Target:
    """What a GPU is called by the compiler, and what it compiles to."""

    generation: Generation
    backend: str
    architecture: int | str
    threads: int
    binary: str


TARGETS = [
    Target(Generation.AMPERE, "cuda", 80, 32, "cubin"),
    Target(Generation.HOPPER, "cuda", 90, 32, "cubin"),
    Target(Generation.CDNA3, "hip", "gfx942", 64, "hsaco"),
]


class Choices(Mapping[Program, Launch]):
    """The nth choice of each program in a table, else its last; notes what it was asked for."""

    def __init__(self, generation: Generation, number: int) -> None:
        self.table, self.number = TABLES[generation], number
        self.asked: set[Program] = set()

    def __getitem__(self, program: Program) -> Launch:
        self.asked.add(program)
        choices = self.table[program]
        return choices[min(self.number, len(choices) - 1)]

    def __iter__(self) -> Iterator[Program]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class Noted:
    """A launch: the kernel, and its arguments and options by name."""

    kernel: object
    arguments: dict[str, object]
    options: dict[str, object]

    def compiled(self, target: Target):
        """The compiled kernel of a target."""
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, compile

        signature, constants, attributes = {}, {}, {}
        for i, parameter in enumerate(self.kernel.params):
            value = self.arguments[parameter.name]
            is_told = isinstance(value, int) and not parameter.do_not_specialize
            if parameter.is_constexpr or (is_told and value == 1):
                signature[parameter.name], constants[parameter.name] = "constexpr", value
                continue
            if isinstance(value, torch.Tensor):
                signature[parameter.name] = f"*{KINDS[value.dtype]}"
            else:
                signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
            # torch aligns storages so, and a launch tells the compiler, also of numbers
            is_aligned = (
                not parameter.do_not_specialize_on_alignment
                if isinstance(value, torch.Tensor)
                else is_told and value % 16 == 0
            )
            if is_aligned:
                attributes[i,] = [["tt.divisibility", 16]]
        source = ASTSource(
            fn=self.kernel, signature=signature, constexprs=constants, attrs=attributes
        )
        gpu = GPUTarget(target.backend, target.architecture, target.threads)
        return compile(source, target=gpu, options=self.options)


@pytest.fixture
def launched(monkeypatch) -> Callable[[str, Choices], list[Noted]]:
    """Makes a call under some choices; returns its launches, which do not run."""
    triton = pytest.importorskip("triton", reason="triton is not installed (made for Linux only)")
    if triton.knobs.runtime.interpret:
        pytest.skip("TRITON_INTERPRET is set: nothing is compiled")
    noted = []

    def run(kernel, *args, grid, warmup, **kwargs):
        assert all(0 < n <= most for n, most in zip(grid, MOST_PROGRAMS, strict=False))
        options = {name: kwargs.pop(name) for name in OPTIONS}
        names = kernel.arg_names
        assert len(args) + len(kwargs) == len(names)
        noted.append(Noted(kernel, dict(zip(names, args, strict=False)) | kwargs, options))

    monkeypatch.setattr(triton.JITFunction, "run", run)

    def launched(name: str, choices: Choices) -> list[Noted]:
        noted.clear()
        with using(choices):
            CALLS[name]()
        assert noted
        return list(noted)

    return launched


def assert_fits(launch: Noted, target: Target) -> None:
    made = launch.compiled(target)
    assert made.asm[target.binary]
    assert made.metadata.shared <= SHARED_BYTES[target.generation], (
        launch.kernel.__name__,
        launch.options,
        made.metadata.shared,
    )


@pytest.mark.aot
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.generation.name)
@pytest.mark.parametrize("name", list(CALLS))
def test_kernels_compile_and_fit_every_gpu(launched, name, target):
    for launch in launched(name, Choices(target.generation, 0)):
        assert_fits(launch, target)


@pytest.mark.aot
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.generation.name)
@pytest.mark.parametrize("name", list(CALLS))
def test_what_tuning_may_choose_compiles_and_fits_too(launched, name, target):
    choices = Choices(target.generation, 0)
    launched(name, choices)
    for number in range(1, max(len(choices.table[program]) for program in choices.asked)):
        for launch in launched(name, Choices(target.generation, number)):
            assert_fits(launch, target)


@pytest.mark.aot
def test_every_program_of_the_tables_is_compiled_somewhere(launched):
    choices = Choices(Generation.HOPPER, 0)
    for name in CALLS:
        launched(name, choices)
    assert choices.asked == set(Program)


@pytest.mark.aot
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.generation.name)
@pytest.mark.parametrize("name", ["decode", "drafts", "latent, few rows"])
def test_half_precision_uses_matrix_units_and_wide_loads(launched, name, target):
    attend, *_ = launched(f"ragged_attention: {name}", Choices(target.generation, 0))
    made = attend.compiled(target).asm
    if target.backend == "hip":
        assert "v_mfma" in made["amdgcn"]
        assert "load_dwordx4" in made["amdgcn"]
    else:
        assert "mma.sync" in made["ptx"]
        assert "cp.async.cg.shared.global" in made["ptx"]  # 16 bytes, without a register


@pytest.mark.aot
@pytest.mark.parametrize("name", list(CALLS))
def test_sizes_that_change_between_prompts_do_not_compile_again(launched, name):
    for launch in launched(name, Choices(Generation.HOPPER, 0)):
        for parameter in launch.kernel.params:
            value = launch.arguments[parameter.name]
            told = (launch.kernel.__name__, parameter.name)
            if isinstance(value, torch.Tensor):
                # a part of a storage is aligned at some sizes only
                whole = value.data_ptr() % 16 == 0
                assert whole or parameter.do_not_specialize_on_alignment, told
            elif not parameter.is_constexpr and isinstance(value, int):
                assert parameter.do_not_specialize or parameter.name in KNOWN_STRIDES, told


def stack_bytes(cubin: bytes, folder: Path) -> int:
    """What each thread of a program has of stack; more than a few bytes are spilled registers."""
    from triton import knobs

    file = folder / "program.cubin"
    file.write_bytes(cubin)
    command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", told)[1])


@pytest.mark.aot
@pytest.mark.parametrize(
    "target", [x for x in TARGETS if x.backend == "cuda"], ids=lambda target: target.generation.name
)
@pytest.mark.parametrize("name", list(CALLS))
def test_registers_do_not_spill(launched, name, target, tmp_path):
    for launch in launched(name, Choices(target.generation, 0)):
        if launch.kernel.__name__ in {"attend_kernel", "piece_kernel"} and "float32" in name:
            # without tensor cores a weighted sum of values needs more registers than there are
            continue
        used = stack_bytes(launch.compiled(target).asm[target.binary], tmp_path)
        assert used < MOST_STACK_BYTES, (launch.kernel.__name__, used)
