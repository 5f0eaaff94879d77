"""A live cache as named tensors, and as a file that only holds tensors.

Reading one runs no code: a file is safetensors, and a dictionary of tensors can be read with
`weights_only=True`.
"""

import hashlib
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kvbudget.allocator import BadFile, WrongModel
from kvbudget.allocator.array_file import METADATA_KEY, parse_header
from kvbudget.allocator.envelope import seal, unseal
from kvbudget.allocator.files import FilePath, bad_file, read_whole, write_whole
from kvbudget.allocator.geometry import Geometry
from kvbudget.allocator.json_fields import read_field

from .layer_record import LayerRecord
from .layer_stack import LayerStack

FORMAT = "kvbudget-cache"
VERSION = 1
IDENTITY = "kvbudget"
"""Name of the tensor that tells, as JSON text, what the cache is one of."""


def tensors_of(stack: LayerStack) -> dict[str, Tensor]:
    """All that the layers hold and remember, and what they belong to, in memory of its own.

    Raises:
        KVBudgetError: The last forward broke off half-way.
    """
    text = seal(FORMAT, VERSION, _identity(stack))
    tensors = {IDENTITY: torch.tensor(list(text.encode("ascii")), dtype=torch.uint8)}
    for index, record in enumerate(stack.records()):
        tensors |= record.named(f"layers.{index}.")
    return tensors


def records_in(tensors: Mapping[str, Tensor], stack: LayerStack) -> list[LayerRecord]:
    """What every layer of a cache held; nothing is changed yet.

    Raises:
        TypeError: They are no tensors by name.
        WrongModel: They are of another model.
        BadFile: They are of no cache, of one with another plan or heuristic, or some are missing.
    """
    _check_named(tensors)
    if IDENTITY not in tensors:
        raise BadFile("The tensors are not of a cache: pass what cache.state_dict() returned.")
    try:
        text = bytes(tensors[IDENTITY].tolist()).decode("ascii")
        _check_identity(unseal(text, FORMAT, VERSION), stack)
        return _records(tensors, stack)
    except (BadFile, WrongModel):
        raise
    except (TypeError, ValueError) as error:
        raise unusable(error) from error


def unusable(error: Exception) -> BadFile:
    """The error for tensors that cannot be used."""
    return BadFile(f"The tensors are not of a usable cache: {str(error).rstrip('.')}.")


def _check_named(tensors: object) -> None:
    if not isinstance(tensors, Mapping) or not all(isinstance(x, Tensor) for x in tensors.values()):
        raise TypeError(
            f"`tensors` must be what cache.state_dict() returned, but got {tensors!r:.60}."
        )


def _records(tensors: Mapping[str, Tensor], stack: LayerStack) -> list[LayerRecord]:
    if not any(name.startswith("layers.") for name in tensors):
        return []
    records = []
    for layer in stack.layers:
        prefix = f"layers.{layer.index}."
        records.append(LayerRecord.read(tensors, prefix))
        records[-1].check(layer, prefix)
    if len({(len(record.lengths), record.seen_tokens) for record in records}) > 1:
        raise ValueError("its layers have not read the same tokens")
    return records


def _check_identity(found: Mapping[str, object], stack: LayerStack) -> None:
    geometry = Geometry.from_json(read_field(found, "geometry", dict))
    if geometry != stack.plan.geometry:
        raise WrongModel(
            f"The cache was saved for {geometry}, but the plan here is for {stack.plan.geometry}. "
            f"Load it into a cache of its own model."
        )
    for name, value in _identity(stack).items():
        if name != "geometry" and found.get(name) != value:
            raise BadFile(
                f"The cache was saved with another {name.replace('_', ' ')} "
                f"({found.get(name)!s:.60}, here {value!s:.60}): load it into a cache with the "
                f"plan, the heuristic and the adaptation that it was saved with."
            )


def _identity(stack: LayerStack) -> dict[str, object]:
    """What has to be the same for a cache to go on as it would have."""
    plan, heuristic = stack.plan, stack.layers[0].heuristic
    return {
        "geometry": plan.geometry.to_json(),
        "model": plan.model,
        "budget_bytes": plan.budget_bytes,
        "batch_size": plan.batch_size,
        "capacity_tokens": hashlib.sha256(plan.capacity_tokens.tobytes()).hexdigest(),
        "heuristic": _name_of(heuristic),
        "adaptation": "none" if stack.adaptation is None else _name_of(stack.adaptation),
        "part_of_the_heads": repr(stack.split),
    }


def write_cache(path: FilePath, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors so that a reader sees the old file or the new one, never a part.

    Raises:
        FileNotFoundError: The folder does not exist.
        IsADirectoryError: The path is a folder.
    """
    header = seal(FORMAT, VERSION, {}, _digest(tensors))
    write_whole(path, save(dict(tensors), metadata={METADATA_KEY: header}))


def read_cache(path: FilePath) -> dict[str, Tensor]:
    """Read what `write_cache` wrote, onto the CPU.

    Raises:
        BadFile: The file is missing, damaged, foreign or written by a newer version.
    """
    raw = read_whole(path, "cache")
    try:
        tensors: dict[str, Tensor] = load(raw)
        unseal(parse_header(raw), FORMAT, VERSION, _digest(tensors))
    except SafetensorError as error:
        raise BadFile(
            f"{path} is not a usable cache: it is not a complete safetensors file ({error})."
        ) from error
    except (TypeError, ValueError) as error:
        raise bad_file(path, "cache", error) from error
    return tensors


def _name_of(plugin: object) -> str:
    """Class and settings; a class without fields that tell them is named alone."""
    kind = type(plugin)
    settings = repr(plugin) if kind.__repr__ is not object.__repr__ else ""
    return f"{kind.__module__}.{kind.__qualname__} {settings}".strip()


def _digest(tensors: Mapping[str, Tensor]) -> bytes:
    """Checksum of names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.digest()
