"""On a GPU, a captured call follows what changes in place: lengths, tail, and evictions."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from kvbudget.kernels import Prefix, ragged_attention
from kvbudget.kernels.ragged_attention import reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("new", [1, 5])
def test_a_captured_call_follows_lengths_tail_and_evictions(case, new):
    rooms, options = [500, 700, 300, 90], {"group": 4, "new": new, "head_dim": 64, "value_dim": 64}
    steps = [([500, 700, 300, 90], 8), ([400, 20, 0, 90], 5), ([0, 0, 0, 0], 6), ([9, 1, 7, 90], 8)]
    calls = []
    for seed, (sizes, tail_tokens) in enumerate(steps):
        free = [room - size for size, room in zip(sizes, rooms, strict=True)]
        call = case(sizes, free=free, tail_tokens=tail_tokens, seed=seed, sinks=True, **options)
        calls.append((call, tail_tokens))
    first = calls[0][0].to("cuda")
    queries, *kept, tail_keys, tail_values, _ = first.tensors
    ends, sinks = first.settings["ends"], first.settings["sinks"]
    lengths = torch.tensor([8, first.settings["seen_tokens"]], dtype=torch.int32, device="cuda")
    prefix = Prefix(*kept, ends)
    mass, tail_mass = first.mass, first.tail_mass
    attend = partial(
        ragged_attention,
        *(queries, *kept, tail_keys, tail_values, 8),
        **first.settings | {"prefix": prefix, "lengths": lengths},
        mass=mass,
        tail_mass=tail_mass,
    )
    attend()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attend()
    for call, tail_tokens in calls:
        queries.copy_(call.tensors[0])
        for mine, its in zip(
            (*kept, ends), (*call.tensors[1:5], call.settings["ends"]), strict=True
        ):
            mine.copy_(its)
        sinks.copy_(call.settings["sinks"])
        slots = call.tensors[5].shape[2]
        tail_keys[:, :, :slots], tail_values[:, :, :slots] = (x.cuda() for x in call.tensors[5:7])
        lengths.copy_(torch.tensor([tail_tokens, call.settings["seen_tokens"]]))
        mass.copy_(call.mass)
        tail_mass[:, :, :slots] = call.tail_mass.cuda()
        prefix.renew()
        graph.replay()
        wanted = call.run(reference.ragged_attention)
        for got, expected in zip((out, mass, tail_mass[:, :, :slots]), wanted, strict=True):
            torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=1e-4)
