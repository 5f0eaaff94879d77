"""What each cache loses at each level, measured once for a model."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from .array_file import pack_arrays, unpack_arrays
from .arrays import Floats, float_array, refuse, same_values
from .checks import check_text
from .files import FilePath, bad_file, read_whole, write_whole
from .geometry import Geometry
from .json_fields import read_field
from .levels import DEFAULT_LEVELS
from .profile_check import ProfileCheck, read_check, refuse_check, written_check
from .settings import Settings, call_text, check_settings

FORMAT = "kvbudget-profile"
VERSION = 1
ARRAYS = ("loss", "sample_loss", "kept_fraction")
AXES = ("layers", "kv_heads", "levels")
SHARES_SHOWN = (0.1, 0.25, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Loss of every KV cache of a model at every level of a menu.

    A level is a share of the context that the cache keeps. The losses of different caches can
    be added up: their sum predicts what the whole model loses under a plan.

    Args:
        loss: Loss of each cache at each level, [layers, kv_heads, levels], at least 0, lower is
            better; the unit is that of ``measure``. 0 where a layer has fewer KV heads than
            another and there is no cache.
        sample_loss: The same for each prompt, [samples, layers, kv_heads, levels].
        kept_fraction: Share of the context kept at each level, [levels], strictly rising in
            (0, 1], the last is 1.
        geometry: The caches of the model.
        model: Name or path of the model.
        heuristic: Registry name of the heuristic that chose which tokens to keep.
        heuristic_settings: Its settings as (name, value) pairs.
        measure: Name of the measure that the loss is in.
        made_by: One readable line on how the profile came about.
        check: What plans made from it really lost; None if nobody looked.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If shapes disagree, a loss is negative or not finite, or not 0 where there is
            no cache, or the levels do not rise to 1.
    """

    loss: Floats
    sample_loss: Floats
    kept_fraction: Floats
    geometry: Geometry
    model: str
    heuristic: str
    heuristic_settings: Settings
    measure: str
    made_by: str = ""
    check: ProfileCheck | None = None

    def __post_init__(self) -> None:
        """Copy and check every field."""
        if not isinstance(self.geometry, Geometry):
            raise TypeError(f"`geometry` must be a Geometry, but got {self.geometry!r:.60}.")
        for name in ("model", "heuristic", "measure", "made_by"):
            check_text(name, getattr(self, name))
        refuse_check(self.check)
        checked = {
            "loss": check_loss("loss", self.loss, AXES),
            "sample_loss": check_loss("sample_loss", self.sample_loss, ("samples", *AXES)),
            "kept_fraction": check_levels(self.kept_fraction),
            "heuristic_settings": check_settings(self.heuristic_settings),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Refuse arrays that do not belong to the geometry or to each other."""
        wanted = (self.geometry.layers, self.geometry.kv_heads, len(self.kept_fraction))
        if self.loss.shape != wanted:
            raise ValueError(
                f"`loss` must have the shape [layers, kv_heads, levels] = {wanted},"
                f" but got {self.loss.shape}."
            )
        if self.sample_loss.shape[1:] != wanted:
            raise ValueError(
                f"`sample_loss` must have the shape [samples, layers, kv_heads, levels] with"
                f" {wanted} after the samples, but got {self.sample_loss.shape}."
            )
        check_absent("loss", self.loss, self.geometry)
        check_absent("sample_loss", self.sample_loss, self.geometry)

    @classmethod
    def from_importance(
        cls,
        importance: ArrayLike,
        geometry: Geometry,
        *,
        kept_fraction: ArrayLike = DEFAULT_LEVELS,
        model: str = "",
        heuristic: str = "",
        heuristic_settings: Settings = (),
        made_by: str = "",
    ) -> "Profile":
        """A profile whose best plan shares memory in proportion to importance.

        The loss is ``share * -log(kept_fraction)``, where the shares are the importance divided
        by its sum: among real-valued plans the one of least loss gives bytes in proportion to it.
        The profile has one sample, which is the loss itself.

        Args:
            importance: How much each cache deserves, [layers, kv_heads], at least 0, higher
                deserves more; 0 where there is no cache.
            geometry: The caches of the model.
            kept_fraction: Share of the context kept at each level, [levels].
            model: Name or path of the model.
            heuristic: Registry name of the heuristic that chooses tokens.
            heuristic_settings: Its settings as (name, value) pairs.
            made_by: One readable line on where the importance comes from.

        Raises:
            ValueError: If importance is negative, not finite, zero everywhere, not zero where
                there is no cache, or of another shape than the caches.

        Reference:
            Original. The curve is the one whose optimum is the proportional rule of BaKlaVa
            and its kin.
        """
        axes = ("layers", "kv_heads")
        shares = check_loss("importance", importance, axes)
        if not shares.any():
            raise ValueError("`importance` must be above 0 somewhere, but is 0 for every cache.")
        levels = check_levels(kept_fraction)
        # divided by the largest first, so that the sum cannot overflow
        shares = shares / shares.max()
        loss = (shares / shares.sum())[..., None] * (0.0 - np.log(levels))
        return cls(
            loss=loss,
            sample_loss=loss[None],
            kept_fraction=levels,
            geometry=geometry,
            model=model,
            heuristic=heuristic,
            heuristic_settings=heuristic_settings,
            measure="importance",
            made_by=made_by,
        )

    def with_dtype(self, dtype: str) -> "Profile":
        """The same losses for caches that are stored in another element type, not yet checked."""
        return replace(self, geometry=self.geometry.with_dtype(dtype), check=None)

    def save(self, path: FilePath) -> None:
        """Write the profile as a safetensors file with a JSON description in its metadata.

        Raises:
            FileNotFoundError: If the folder does not exist.
            IsADirectoryError: If the path is a folder.
        """
        content = {
            "geometry": self.geometry.to_json(),
            "model": self.model,
            "heuristic": self.heuristic,
            "heuristic_settings": [list(pair) for pair in self.heuristic_settings],
            "measure": self.measure,
            "made_by": self.made_by,
            "check": written_check(self.check),
        }
        arrays = {name: getattr(self, name) for name in ARRAYS}
        write_whole(path, pack_arrays(FORMAT, VERSION, content, arrays))

    @classmethod
    def load(cls, path: FilePath) -> "Profile":
        """Read a profile that :meth:`save` wrote.

        Raises:
            BadFile: If the file is missing, damaged, foreign or written by a newer version.
        """
        raw = read_whole(path, "profile")
        try:
            record, arrays = unpack_arrays(raw, FORMAT, VERSION, ARRAYS)
            return cls(
                **arrays,
                geometry=Geometry.from_json(read_field(record, "geometry", dict)),
                model=read_field(record, "model", str),
                heuristic=read_field(record, "heuristic", str),
                heuristic_settings=tuple(read_field(record, "heuristic_settings", list)),
                measure=read_field(record, "measure", str),
                made_by=read_field(record, "made_by", str),
                check=read_check(record),
            )
        except (TypeError, ValueError) as error:
            raise bad_file(path, "profile", error) from error

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal, arrays element by element."""
        return same_values(self, other)

    def __str__(self) -> str:
        """A few lines for people."""
        lowest = self.loss[..., 0][self.geometry.present]
        heuristic = call_text(self.heuristic or "no heuristic", self.heuristic_settings)
        return "\n".join(
            (
                f"Profile of {self.model or 'an unnamed model'}: {self.geometry}",
                f"  loss      {self.measure}, tokens chosen by {heuristic}",
                f"  levels    {len(self.kept_fraction)}, keeping {self.kept_fraction[0]:.3g} to"
                f" {self.kept_fraction[-1]:.3g} of the context",
                f"  samples   {len(self.sample_loss)}",
                f"  at lowest {lowest.min():.3g} to {lowest.max():.3g} per cache,"
                f" {lowest.sum():.3g} in all; most at {self._neediest()}",
                f"  alike     {self._loss_if_alike()}",
                f"  made by   {self.made_by or 'unknown'}",
                f"  checked   {self.check or 'never'}",
            )
        )

    def _loss_if_alike(self) -> str:
        """What is lost in all if every cache keeps the same share, at a few levels."""
        levels, total = self.kept_fraction, self.loss.sum(axis=(0, 1))
        nearest = sorted({int(np.abs(levels - share).argmin()) for share in SHARES_SHOWN})
        losses = ", ".join(f"{total[at]:.3g} keeping {levels[at]:.3g}" for at in nearest)
        return f"{losses} everywhere"

    def _neediest(self) -> str:
        """Where the loss at the lowest level is greatest."""
        layer, kv_head = divmod(int(self.loss[..., 0].argmax()), self.geometry.kv_heads)
        return f"layer {layer}, KV head {kv_head}"


def check_loss(name: str, value: ArrayLike, axes: tuple[str, ...]) -> Floats:
    """Return a read-only copy of losses, which must be finite and at least 0.

    Raises:
        TypeError: If it does not hold numbers.
        ValueError: If an axis is missing, or a value is negative or not finite.
    """
    loss = float_array(name, value, axes)
    refuse(name, loss, loss < 0, axes, "must be at least 0")
    return loss


def check_absent(name: str, loss: Floats, geometry: Geometry) -> None:
    """Refuse a loss of a cache that a layer does not have.

    Args:
        name: Name of the argument, for messages.
        loss: Losses, [..., layers, kv_heads, levels].
        geometry: The caches of the model.

    Raises:
        ValueError: If a loss is not 0 where there is no cache.
    """
    if geometry.layer_shapes is None:
        return
    beside = (loss != 0) & ~geometry.present[..., None]
    axes = AXES if loss.ndim == len(AXES) else ("samples", *AXES)
    refuse(name, loss, beside, axes, "must be 0 where the layer has no such KV head")


def check_levels(value: ArrayLike) -> Floats:
    """Return a read-only copy of kept shares, which must rise strictly in (0, 1] and end at 1.

    Raises:
        TypeError: If it does not hold numbers.
        ValueError: If the shares do not rise, leave (0, 1], or do not end at 1.
    """
    levels = float_array("kept_fraction", value, ("levels",))
    if levels[0] <= 0 or levels[-1] != 1 or (np.diff(levels) <= 0).any():
        raise ValueError(
            "`kept_fraction` must rise strictly from above 0 to exactly 1,"
            f" but got {levels.tolist()!s:.120}."
        )
    return levels
