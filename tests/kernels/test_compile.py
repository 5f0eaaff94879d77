"""Every kernel compiles for real GPUs, in the configurations it is launched in, without a GPU.

The interpreter accepts code that the compiler refuses, and knows no limit of shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
import torch

# what every GPU since sm_80 grants one block
MOST_SHARED_BYTES = 99 * 1024

KINDS = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
}


@dataclass
class Recorder:
    """Stands in for a kernel and keeps what it was launched with."""

    kernel: object
    launched: dict | None = None

    def __getitem__(self, grid):
        assert all(0 < size < 2**31 for size in grid)
        return self.launch

    def launch(self, *args, num_warps, num_stages, enable_fp_fusion, **kwargs):
        names = self.kernel.arg_names
        assert len(args) + len(kwargs) == len(names)
        self.launched = dict(zip(names, args, strict=False)) | kwargs
        self.options = {
            "num_warps": num_warps,
            "num_stages": num_stages,
            "enable_fp_fusion": enable_fp_fusion,
        }


@pytest.fixture
def triton_kernel():
    triton = pytest.importorskip("triton", reason="triton is not installed (made for Linux only)")
    if triton.knobs.runtime.interpret:
        pytest.skip("TRITON_INTERPRET is set: nothing is compiled")
    from kvbudget.kernels.ragged_attention import triton_kernel

    return triton_kernel


@pytest.fixture
def launches(triton_kernel, monkeypatch):
    """Runs a call with recorders for kernels; returns them by name."""
    kernels = {
        name: Recorder(getattr(triton_kernel, name))
        for name in ("attend_kernel", "join_kernel", "mass_kernel")
    }
    for name, recorder in kernels.items():
        monkeypatch.setattr(triton_kernel, name, recorder)

    def launches(call):
        call.run(triton_kernel.ragged_attention)
        return kernels

    return launches


def compiled(recorder, capability):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(recorder.kernel.params):
        value = recorder.launched[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = f"*{KINDS[value.dtype]}"
            # torch aligns storages so, and a launch tells the compiler
            attributes[i,] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(
        fn=recorder.kernel, signature=signature, constexprs=constants, attrs=attributes
    )
    target = GPUTarget("cuda", capability, 32)
    return compile(source, target=target, options=recorder.options)


half = partial(dict, dtype=torch.bfloat16, group=4)
COMMON = [
    half(head_dim=128, value_dim=128),
    half(head_dim=128, value_dim=128, new=16),
    half(head_dim=256, value_dim=256, new=16, softcap=50.0),
]
REST = [
    half(head_dim=64, value_dim=64, group=8, sinks=True, dtype=torch.float16),
    half(head_dim=192, value_dim=96),
    half(head_dim=128, value_dim=128, slopes=True, first_seen=torch.int64),
    half(head_dim=128, value_dim=128, new=16, slopes=True, first_seen=torch.int32),
    {"head_dim": 32, "value_dim": 32},
]
SLOW = [
    half(head_dim=256, value_dim=256),
    *({"head_dim": d, "value_dim": d, "new": n} for d in (64, 128, 256) for n in (1, 16)),
    *(half(head_dim=d, value_dim=d, new=n) for d in (32, 64) for n in (1, 16)),
]


@pytest.mark.aot
@pytest.mark.parametrize(
    ("capability", "options"),
    [
        *((90, options) for options in COMMON + REST),
        *((80, options) for options in COMMON),
        *(pytest.param(c, o, marks=pytest.mark.slow) for o in SLOW for c in (80, 90)),
        *(pytest.param(80, options, marks=pytest.mark.slow) for options in REST),
    ],
    ids=str,
)
def test_kernels_compile_and_fit_every_gpu_since_sm_80(case, launches, capability, options):
    tail_tokens = options.get("new", 1)
    for recorder in launches(case([40, 3], tail_tokens=tail_tokens, **options)).values():
        made = compiled(recorder, capability)
        assert made.asm["cubin"]
        assert made.metadata.shared <= MOST_SHARED_BYTES


@pytest.mark.aot
def test_half_precision_uses_tensor_cores_and_wide_loads(case, launches):
    call = case([40, 3], group=4, head_dim=128, value_dim=128, dtype=torch.bfloat16)
    ptx = compiled(launches(call)["attend_kernel"], 90).asm["ptx"]
    assert "mma" in ptx
    assert "cp.async.cg.shared.global" in ptx  # 16 bytes at a time, without a register


@pytest.mark.aot
def test_sizes_that_change_between_tokens_do_not_compile_again(triton_kernel):
    changing = {"num_items", "tail_splits", "tail_tokens", "tail_capacity", "seen", "new", "window"}
    for name in ("attend_kernel", "join_kernel", "mass_kernel"):
        kernel = getattr(triton_kernel, name)
        specialised = {p.name for p in kernel.params if not p.do_not_specialize}
        assert not changing & specialised
