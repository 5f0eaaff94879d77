"""What is proven about a plan."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from .checks import check_number, check_text
from .json_fields import read_field
from .risk import Mean
from .status import Status

MEAN = repr(Mean())


@dataclass(frozen=True, slots=True)
class Certificate:
    """Loss of a plan and a limit that no plan within the same budget can go below.

    Args:
        solver: Name of the solver that made the plan.
        status: Name of its :class:`Status`, such as ``"OPTIMAL"``.
        loss: Predicted loss of the plan, in the unit of the profile's measure.
        bound: Proven lower limit on the loss of every plan within the budget.
        gap: ``(loss - bound) / loss``: the share of the loss that could at most be saved.
        risk: The risk that was minimised, in words.
        constraints: The constraints that held, in words.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is not finite, or the status is unknown or has no plan.
    """

    solver: str
    status: str
    loss: float
    bound: float
    gap: float
    risk: str = MEAN
    constraints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every field."""
        check_text("solver", self.solver)
        check_text("status", self.status)
        known = [status.name for status in Status if status.has_plan]
        if self.status not in known:
            raise ValueError(f"`status` must be one of {known}, but got {self.status!r:.60}.")
        for name in ("loss", "bound", "gap"):
            object.__setattr__(self, name, check_number(name, getattr(self, name)))
        check_text("risk", self.risk)
        object.__setattr__(self, "constraints", check_words("constraints", self.constraints))

    def to_json(self) -> dict[str, object]:
        """The fields as JSON types."""
        return {**asdict(self), "constraints": list(self.constraints)}

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> "Certificate":
        """Read what :meth:`to_json` wrote; older files know no risk and no constraints.

        Raises:
            TypeError: If a field cannot be used.
            ValueError: If a field is missing or cannot be used.
        """
        return cls(
            solver=read_field(record, "solver", str),
            status=read_field(record, "status", str),
            loss=read_field(record, "loss", float),
            bound=read_field(record, "bound", float),
            gap=read_field(record, "gap", float),
            risk=read_field({"risk": MEAN, **record}, "risk", str),
            constraints=tuple(read_field({"constraints": [], **record}, "constraints", list)),
        )

    def __str__(self) -> str:
        """One line: the loss, the bound and who found it."""
        verdict = "optimal" if self.status == Status.OPTIMAL.name else f"gap {percent(self.gap)}"
        return f"{self.loss:.4g}, at least {self.bound:.4g} ({verdict}), found by {self.solver}"


def percent(share: float) -> str:
    """A share for people, never with an exponent where it is of some size."""
    hundredths = 100 * share
    return f"{hundredths:.2g} %" if hundredths < 10 else f"{hundredths:.3g} %"


def check_words(name: str, value: object) -> tuple[str, ...]:
    """Return strings as a tuple.

    Raises:
        TypeError: If it is not a tuple or a list of strings.
    """
    if not isinstance(value, tuple | list):
        raise TypeError(f"`{name}` must be a tuple of strings, but got {value!r:.60}.")
    return tuple(check_text(name, each) for each in value)
