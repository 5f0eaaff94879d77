"""The decision: how many tokens each cache may keep, and the proof of how good that is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .arrays import Floats, Ints, int_array, refuse, same_values
from .bytes_text import format_bytes
from .certificate import MEAN, Certificate
from .checks import check_count, check_text
from .envelope import decode_text, seal, unseal
from .files import FilePath, bad_file, read_whole, write_whole
from .geometry import MOST_TOKENS, Geometry
from .json_fields import read_field
from .plan_curves import Curves
from .profile import check_absent
from .profile_check import ProfileCheck, read_check, refuse_check, written_check
from .settings import Settings, call_text, check_settings

FORMAT = "kvbudget-plan"
VERSION = 2
AXES = ("layers", "kv_heads")


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How many tokens each KV cache of a model may keep.

    Args:
        capacity_tokens: Most tokens each cache may keep, int64 [layers, kv_heads]; 0 where a
            layer has fewer KV heads than another, and only there.
        context_tokens: Longest context the plan is made for, in tokens.
        batch_size: Sequences that share the budget.
        budget_bytes: Bytes that all caches may use together.
        certificate: Loss of the plan and a proven limit on the loss of every plan.
        geometry: The caches of the model.
        model: Name or path of the model.
        heuristic: Registry name of the heuristic that chooses which tokens to keep.
        heuristic_settings: Its settings as (name, value) pairs.
        measure: Name of the measure that the loss is in.
        made_by: One readable line on how the profile behind the plan came about.
        curves: The losses and constraints that the plan was made from, which :meth:`at` needs.
        check: What plans made from the same profile really lost; None if nobody looked.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a capacity is not in 1..context_tokens, or not 0 where there is no cache,
            the shape is not that of the model, or the plan needs more than its budget.
    """

    capacity_tokens: Ints
    context_tokens: int
    batch_size: int
    budget_bytes: int
    certificate: Certificate
    geometry: Geometry
    model: str
    heuristic: str
    heuristic_settings: Settings
    measure: str
    made_by: str = ""
    curves: Curves | None = None
    check: ProfileCheck | None = None

    def __post_init__(self) -> None:
        """Copy and check every field."""
        if not isinstance(self.geometry, Geometry):
            raise TypeError(f"`geometry` must be a Geometry, but got {self.geometry!r:.60}.")
        if not isinstance(self.certificate, Certificate):
            raise TypeError(
                f"`certificate` must be a Certificate, but got {self.certificate!r:.60}."
            )
        for name in ("model", "heuristic", "measure", "made_by"):
            check_text(name, getattr(self, name))
        refuse_check(self.check)
        checked = {
            "context_tokens": check_count("context_tokens", self.context_tokens, most=MOST_TOKENS),
            "batch_size": check_count("batch_size", self.batch_size),
            "budget_bytes": check_count("budget_bytes", self.budget_bytes),
            "capacity_tokens": int_array("capacity_tokens", self.capacity_tokens, AXES),
            "heuristic_settings": check_settings(self.heuristic_settings),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_capacity()
        self._check_curves()

    def _check_capacity(self) -> None:
        """Refuse capacities that do not belong to the model, the context or the budget."""
        shape = (self.geometry.layers, self.geometry.kv_heads)
        if self.capacity_tokens.shape != shape:
            raise ValueError(
                f"`capacity_tokens` must have the shape [layers, kv_heads] = {shape},"
                f" but got {self.capacity_tokens.shape}."
            )
        present = self.geometry.present
        outside = (self.capacity_tokens < 1) | (self.capacity_tokens > self.context_tokens)
        rule = f"must be in 1..{self.context_tokens}"
        refuse("capacity_tokens", self.capacity_tokens, outside & present, AXES, rule)
        beside = (self.capacity_tokens != 0) & ~present
        rule = "must be 0 where the layer has no such KV head"
        refuse("capacity_tokens", self.capacity_tokens, beside, AXES, rule)
        if self.used_bytes > self.budget_bytes:
            raise ValueError(
                f"`capacity_tokens` must fit `budget_bytes`, but needs {self.used_bytes:,} bytes"
                f" of {self.budget_bytes:,}."
            )

    def _check_curves(self) -> None:
        """Refuse curves of another type or of another model."""
        if self.curves is None:
            return
        if not isinstance(self.curves, Curves):
            raise TypeError(f"`curves` must be Curves or None, but got {self.curves!r:.60}.")
        if self.curves.loss.shape[:2] != self.capacity_tokens.shape:
            raise ValueError(
                f"`curves` must be of {self.capacity_tokens.shape} caches [layers, kv_heads],"
                f" but got {self.curves.loss.shape[:2]}."
            )
        check_absent("curves", self.curves.loss, self.geometry)

    @property
    def kept_fraction(self) -> Floats:
        """Share of the context each cache may keep, [layers, kv_heads]; 0 where there is none."""
        return np.asarray(self.capacity_tokens / self.context_tokens, dtype=np.float64)

    @property
    def used_bytes(self) -> int:
        """Bytes of all caches together when each is full."""
        by_layer: list[int] = [sum(row) for row in self.capacity_tokens.tolist()]
        # every layer has a first KV head
        sizes: list[int] = self.geometry.token_bytes[:, 0].tolist()
        used = sum(tokens * size for tokens, size in zip(by_layer, sizes, strict=True))
        return used * self.batch_size

    @property
    def loss(self) -> float:
        """Predicted loss of the plan, in the unit of the measure."""
        return self.certificate.loss

    @property
    def bound(self) -> float:
        """Loss that no plan within the budget can beat."""
        return self.certificate.bound

    @property
    def gap(self) -> float:
        """How much of the loss a better plan could save at most, from 0 (none) to 1."""
        return self.certificate.gap

    def at(self, context_tokens: int) -> "Plan":
        """The best division of the same budget for a context of another length.

        The batch size and the constraints stay; shares of the full cache in them are those of
        the new context. The plan comes from ``Hull()``, or where constraints couple caches from
        a solver that honours them, whatever solver made this one.

        Args:
            context_tokens: Longest context of the new plan, in tokens.

        Raises:
            InfeasibleBudget: If nothing fits the budget and the constraints at this length.
            TypeError: If the length is not an integer.
            ValueError: If the length is below 1, or the plan does not hold its curves.
        """
        # these modules make plans, so they cannot be imported first
        from .solve import solve
        from .solver_choice import solver_for

        curves = self._known_curves()
        problem = curves.problem(self, context_tokens=context_tokens, budget=self.budget_bytes)
        return solve(problem, solver_for(curves.constraints)).plan

    def _known_curves(self) -> Curves:
        """The curves, or a refusal that says why there are none."""
        if self.curves is not None:
            return self.curves
        if self.certificate.risk != MEAN:
            raise ValueError(
                "`context_tokens` must stay as it is in a plan for the risk"
                f" {self.certificate.risk}, which needs the losses of every prompt."
                " Allocate from the profile again."
            )
        raise ValueError(
            "`context_tokens` must stay as it is in a plan without curves: it was made by hand, by"
            " an older version, or with a constraint that files cannot hold, such as Custom."
            " Allocate from the profile again."
        )

    def save(self, path: FilePath) -> None:
        """Write the plan as JSON.

        Raises:
            FileNotFoundError: If the folder does not exist.
            IsADirectoryError: If the path is a folder.
        """
        content = {
            "capacity_tokens": self.capacity_tokens.tolist(),
            "context_tokens": self.context_tokens,
            "batch_size": self.batch_size,
            "budget_bytes": self.budget_bytes,
            "certificate": self.certificate.to_json(),
            "geometry": self.geometry.to_json(),
            "model": self.model,
            "heuristic": self.heuristic,
            "heuristic_settings": [list(pair) for pair in self.heuristic_settings],
            "measure": self.measure,
            "made_by": self.made_by,
            "curves": None if self.curves is None else self.curves.to_json(),
            "check": written_check(self.check),
        }
        write_whole(path, (seal(FORMAT, VERSION, content) + "\n").encode("ascii"))

    @classmethod
    def load(cls, path: FilePath) -> "Plan":
        """Read a plan that :meth:`save` wrote.

        Raises:
            BadFile: If the file is missing, damaged, foreign or written by a newer version.
        """
        raw = read_whole(path, "plan")
        try:
            record = unseal(decode_text(raw), FORMAT, VERSION)
            return cls(
                capacity_tokens=int_array(
                    "capacity_tokens", read_field(record, "capacity_tokens", list), AXES
                ),
                context_tokens=read_field(record, "context_tokens", int),
                batch_size=read_field(record, "batch_size", int),
                budget_bytes=read_field(record, "budget_bytes", int),
                certificate=Certificate.from_json(read_field(record, "certificate", dict)),
                geometry=Geometry.from_json(read_field(record, "geometry", dict)),
                model=read_field(record, "model", str),
                heuristic=read_field(record, "heuristic", str),
                heuristic_settings=tuple(read_field(record, "heuristic_settings", list)),
                measure=read_field(record, "measure", str),
                made_by=read_field(record, "made_by", str),
                curves=read_curves(record),
                check=read_check(record),
            )
        except (TypeError, ValueError) as error:
            raise bad_file(path, "plan", error) from error

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal, arrays element by element."""
        return same_values(self, other)

    def __str__(self) -> str:
        """A few lines for people."""
        tokens = self.capacity_tokens[self.geometry.present]
        full = self.geometry.full_bytes(self.context_tokens, self.batch_size)
        heuristic = call_text(self.heuristic or "no heuristic", self.heuristic_settings)
        lines = [
            f"Plan for {self.model or 'an unnamed model'}: {self.geometry}",
            f"  memory    {format_bytes(self.used_bytes)} of a"
            f" {format_bytes(self.budget_bytes)} budget"
            f" (full cache: {format_bytes(full)}, batch size {self.batch_size})",
            f"  caches    each keeps {tokens.min()} to {tokens.max()}"
            f" of {self.context_tokens} tokens, {tokens.mean():.1f} on average",
            f"  loss      {self.certificate} ({self.measure})",
            f"  checked   {self.check or 'never; `kvbudget check` does it, or check_profile'}",
            f"  tokens    chosen by {heuristic}",
        ]
        if self.certificate.risk != MEAN:
            lines.append(f"  risk      {self.certificate.risk}")
        if self.certificate.constraints:
            lines.append(f"  limits    {', '.join(self.certificate.constraints)}")
        return "\n".join(lines)


def read_curves(record: Mapping[str, object]) -> Curves | None:
    """The curves in a plan's file; the first files had none.

    Raises:
        TypeError: If a field of them cannot be used.
        ValueError: If they are no object, or a field is missing or cannot be used.
    """
    if record.get("curves") is None:
        return None
    return Curves.from_json(read_field(record, "curves", dict))
