"""Where figures come from: versions, commit, machine and model."""

import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from kvbudget import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN_NUMBERS = 64


@dataclass(frozen=True, slots=True)
class Origin:
    """What rows were measured with.

    Args:
        model: The model's name.
        weights: Fingerprint of its weights, as in `weights_fingerprint`.
        geometry: Its caches, in words.
        kvbudget: Version.
        torch: Version.
        transformers: Version.
        machine: Processor or GPU, and threads.
        commit: Of the checkout that the package runs from; None if it runs from none.
    """

    model: str
    weights: str
    geometry: str
    kvbudget: str
    torch: str
    transformers: str
    machine: str
    commit: str | None

    @classmethod
    def of(cls, model: "PreTrainedModel", name: str | None = None) -> "Origin":
        """The origin of what is measured now, with a model.

        Args:
            model: The model.
            name: What to call it; the name it was loaded by, or its class, if None.
        """
        from kvbudget.runtime import geometry_of

        return cls(
            model=name or str(model.config.name_or_path) or type(model).__name__,
            weights=weights_fingerprint(model),
            geometry=str(geometry_of(model)),
            kvbudget=__version__,
            torch=version("torch"),
            transformers=version("transformers"),
            machine=machine(),
            commit=commit(),
        )


def weights_fingerprint(model: "PreTrainedModel") -> str:
    """Sixteen hexadecimal digits of the names, shapes and types of all weights and some of each.

    The first and the last numbers of every weight count, so that models of one architecture are
    told apart in no time; it is no proof that every number is the same.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name} {list(weight.shape)} {weight.dtype}\n".encode())
        if weight.device.type != "meta":
            digest.update(_some_bytes(weight.detach()))
    return digest.hexdigest()[:16]


def machine() -> str:
    """Processor or GPU, and the threads in use."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{platform.machine()} {device}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def commit() -> str | None:
    """Commit of the checkout that this package lies in, marked if it was changed since."""
    import kvbudget

    root = Path(kvbudget.__file__).resolve().parents[2]
    if not ((root / ".git").exists() and (root / "pyproject.toml").is_file()):
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _some_bytes(weight: Tensor) -> bytes:
    flat = weight.flatten()
    shown = (flat[:SHOWN_NUMBERS], flat[-SHOWN_NUMBERS:])
    return b"".join(each.float().cpu().numpy().tobytes() for each in shown)
