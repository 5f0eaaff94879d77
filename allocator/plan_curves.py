"""What a plan remembers of its profile, so that it can be divided anew for another context."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .arrays import Floats, float_array, same_values
from .budget import Budget
from .constraint import Constraint
from .constraint_json import can_write, constraint_from_json, constraint_to_json
from .json_fields import read_field
from .origin import Origin
from .problem import Problem, check_constraints
from .profile import AXES, Profile, check_levels, check_loss

if TYPE_CHECKING:
    from .plan import Plan


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """The losses and constraints that a plan was made from.

    Args:
        kept_fraction: Share of the context kept at each level, [levels], rising to 1.
        loss: Loss of each cache at each level, [layers, kv_heads, levels], at least 0; 0 where a
            layer has no such cache.
        constraints: The constraints that held, all of which a file can hold.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a loss is negative or not finite, the levels do not rise to 1, their
            numbers differ, or a constraint cannot be written to a file.
    """

    kept_fraction: Floats
    loss: Floats
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        """Copy and check every field."""
        object.__setattr__(self, "kept_fraction", check_levels(self.kept_fraction))
        object.__setattr__(self, "loss", check_loss("loss", self.loss, AXES))
        object.__setattr__(self, "constraints", check_constraints(self.constraints))
        if self.loss.shape[2] != len(self.kept_fraction):
            raise ValueError(
                f"`loss` must have one entry per level, but got {self.loss.shape[2]} for"
                f" {len(self.kept_fraction)} levels."
            )
        if not all(map(can_write, self.constraints)):
            raise ValueError("`constraints` must hold only such as a file can hold.")

    @classmethod
    def of(cls, problem: Problem) -> "Curves | None":
        """The curves from which a problem can be stated again, or ``None``.

        There are none where a problem was not made from a profile or was changed afterwards,
        where its risk needs the losses of every sample, or where a file cannot hold a constraint.
        """
        origin = problem.origin
        if origin is None or problem.sample_loss is not None:
            return None
        if not all(map(can_write, problem.constraints)):
            return None
        loss = origin.geometry.on_grid(origin.loss)
        curves = cls(origin.kept_fraction, loss, problem.constraints)
        again = curves.problem(
            origin, context_tokens=origin.context_tokens, budget=max(problem.budget_bytes, 1)
        )
        return curves if again == problem else None

    def profile(self, labels: "Plan | Origin") -> Profile:
        """A profile with these losses.

        Args:
            labels: Who knows the model, the heuristic and the measure.
        """
        return Profile(
            loss=self.loss,
            sample_loss=self.loss[None],
            kept_fraction=self.kept_fraction,
            geometry=labels.geometry,
            model=labels.model,
            heuristic=labels.heuristic,
            heuristic_settings=labels.heuristic_settings,
            measure=labels.measure,
            made_by=labels.made_by,
            check=labels.check,
        )

    def problem(self, labels: "Plan | Origin", *, context_tokens: int, budget: Budget) -> Problem:
        """The problem of dividing a budget of the same model.

        Args:
            labels: Who knows the model and the batch size.
            context_tokens: Longest context to plan for, in tokens.
            budget: A budget in any form.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If an argument is out of range, or a constraint does not fit the model.
        """
        return Problem.from_profile(
            self.profile(labels),
            budget=budget,
            context_tokens=context_tokens,
            batch_size=labels.batch_size,
            constraints=self.constraints,
        )

    def to_json(self) -> dict[str, object]:
        """The fields as JSON types."""
        return {
            "kept_fraction": self.kept_fraction.tolist(),
            "loss": self.loss.tolist(),
            "constraints": [constraint_to_json(each) for each in self.constraints],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> "Curves":
        """Read what :meth:`to_json` wrote.

        Raises:
            TypeError: If a field cannot be used.
            ValueError: If a field is missing or cannot be used.
        """
        loss = read_field(record, "loss", list)
        return cls(
            kept_fraction=float_array(
                "kept_fraction", read_field(record, "kept_fraction", list), ("levels",)
            ),
            loss=float_array("loss", loss, AXES),
            constraints=tuple(map(constraint_from_json, read_field(record, "constraints", list))),
        )

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal, arrays element by element."""
        return same_values(self, other)
