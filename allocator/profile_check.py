"""How far the losses of a profile can be believed: predicted against measured, plan by plan."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .arrays import Floats, float_array, refuse
from .checks import check_count, check_text
from .json_fields import read_field

AXES = ("plans",)
FACTOR = 2.0
NUMBERS = ("predicted", "measured", "kept_fraction")


@dataclass(frozen=True, slots=True)
class ProfileCheck:
    """What plans were predicted to lose and what the running model lost with them.

    Args:
        predicted: Loss of each plan by the profile, [plans], in the unit of its measure.
        measured: Divergence of the model run with that plan from the full cache, [plans], in nats
            per predicted token.
        kept_fraction: Share of the full cache that each plan keeps, [plans].
        is_solved: Whether the plan came from a solver; else its levels were drawn at random.
        prompts: Prompts that every plan was run on.
        in_nats: Whether predicted losses are divergences in nats per token, too; if not, only the
            order of predicted and measured can be compared.
        heuristic: What chose the tokens, if it was not the heuristic of the profile.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If the fields are not equally long, have fewer than 2 plans, or hold a number
            that is negative or not finite.
    """

    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    kept_fraction: tuple[float, ...]
    is_solved: tuple[bool, ...]
    prompts: int
    in_nats: bool = True
    heuristic: str = ""

    def __post_init__(self) -> None:
        """Check every field."""
        for name in NUMBERS:
            numbers = float_array(name, getattr(self, name), AXES)
            refuse(name, numbers, numbers < 0, AXES, "must be at least 0")
            object.__setattr__(self, name, tuple(numbers.tolist()))
        object.__setattr__(self, "is_solved", tuple(map(bool, self.is_solved)))
        object.__setattr__(self, "prompts", check_count("prompts", self.prompts))
        check_text("heuristic", self.heuristic)
        lengths = {name: len(getattr(self, name)) for name in (*NUMBERS, "is_solved")}
        if len(set(lengths.values())) > 1 or len(self.predicted) < 2:
            raise ValueError(
                "`predicted`, `measured`, `kept_fraction` and `is_solved` must tell of the same 2"
                f" plans or more, but have {list(lengths.values())} entries."
            )

    @property
    def spearman(self) -> float:
        """Rank correlation of predicted and measured, from -1 to 1; 0 if either is constant."""
        from scipy.stats import spearmanr

        if len(set(self.predicted)) == 1 or len(set(self.measured)) == 1:
            return 0.0
        return float(spearmanr(self.predicted, self.measured).statistic)

    @property
    def ratio(self) -> Floats:
        """Predicted over measured, [plans]; 1 where both are 0, infinite where one is."""
        predicted, measured = np.array(self.predicted), np.array(self.measured)
        equal = predicted == measured
        ratio = np.full_like(measured, np.inf)
        with np.errstate(over="ignore"):
            np.divide(predicted, measured, where=measured > 0, out=ratio)
        return np.asarray(np.where(equal, 1.0, ratio), dtype=np.float64)

    @property
    def slope(self) -> float:
        """Exponent ``b`` of ``measured = a * predicted ** b``, least squares on logarithms.

        1 if errors do not depend on the size of the loss; 0 if nothing can be fitted.
        """
        both = np.array([self.predicted, self.measured])
        x, y = np.log(both[:, (both > 0).all(0)])
        spread = ((x - x.mean()) ** 2).sum() if len(x) else 0.0
        return float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0

    @property
    def worst(self) -> float:
        """The ratio that is farthest from 1."""
        ratio = self.ratio
        farness = np.abs(np.log(np.where(ratio > 0, ratio, np.nextafter(0, 1))))
        return float(ratio[farness.argmax()])

    @property
    def within_two(self) -> float:
        """Share of the plans whose measured loss is at most double or half of the predicted."""
        return _share_within(self.ratio)

    @property
    def solved_within_two(self) -> float:
        """The same share among the plans that came from a solver; 1 if there are none."""
        ratio = self.ratio[np.array(self.is_solved)]
        return _share_within(ratio) if len(ratio) else 1.0

    def to_json(self) -> dict[str, object]:
        """The fields as JSON types."""
        numbers: dict[str, object] = {name: list(getattr(self, name)) for name in NUMBERS}
        return {
            **numbers,
            "is_solved": list(self.is_solved),
            "prompts": self.prompts,
            "in_nats": self.in_nats,
            "heuristic": self.heuristic,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> "ProfileCheck":
        """Read what :meth:`to_json` wrote.

        Raises:
            TypeError: If a field cannot be used.
            ValueError: If a field is missing or cannot be used.
        """
        return cls(
            predicted=tuple(read_field(record, "predicted", list)),
            measured=tuple(read_field(record, "measured", list)),
            kept_fraction=tuple(read_field(record, "kept_fraction", list)),
            is_solved=tuple(read_field(record, "is_solved", list)),
            prompts=read_field(record, "prompts", int),
            in_nats=read_field(record, "in_nats", bool),
            heuristic=read_field(record, "heuristic", str),
        )

    def __str__(self) -> str:
        """One line for people."""
        kept = f"{min(self.kept_fraction):.0%} to {max(self.kept_fraction):.0%}"
        chosen = f", tokens chosen by {self.heuristic}" if self.heuristic else ""
        order = (
            f"{len(self.predicted)} plans of {kept} run on {self.prompts} prompt(s){chosen}: rank"
            f" correlation {self.spearman:.3f}"
        )
        if not self.in_nats:
            return f"{order} (the losses are in another unit than the measured nats per token)"
        solved = (
            f" ({self.solved_within_two:.0%} of the solved ones)" if any(self.is_solved) else ""
        )
        return (
            f"{order}, slope {self.slope:.2f}, predicted over measured within 0.5 to 2 for"
            f" {self.within_two:.0%} of them{solved}, worst {self.worst:.2g}"
        )


def _share_within(ratio: Floats) -> float:
    return float(((ratio >= 1 / FACTOR) & (ratio <= FACTOR)).mean())


def read_check(record: Mapping[str, object]) -> ProfileCheck | None:
    """The check in a file's record; None if there is none, as in the first files.

    Raises:
        TypeError: If a field of it cannot be used.
        ValueError: If it is no object, or a field is missing or cannot be used.
    """
    if record.get("check") is None:
        return None
    return ProfileCheck.from_json(read_field(record, "check", dict))


def written_check(check: ProfileCheck | None) -> dict[str, object] | None:
    """What :func:`read_check` reads."""
    return None if check is None else check.to_json()


def refuse_check(check: object) -> None:
    """Refuse what is neither a check nor None.

    Raises:
        TypeError: Says what was given.
    """
    if check is not None and not isinstance(check, ProfileCheck):
        raise TypeError(f"`check` must be a ProfileCheck or None, but got {check!r:.60}.")
